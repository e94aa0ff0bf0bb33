"""Hugging Face models as small as their configurations allow, with random weights: the list. Their loss is their own.

A row is the class of the model, the kind of its batches, and what its configuration needs besides `COMMON` (`...`: that
it does not take a setting of `COMMON`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from tests.architectures import hf_batches as batches
from tests.architectures.entry import Architecture
from tests.architectures.hf_batches import CLASSES, IMAGE, VOCABULARY

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
    "num_labels": CLASSES,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
UNBOUNDED: dict[str, Any] = {"max_position_embeddings": ...}
GROUPED: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SEQ2SEQ: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
T5: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
T5 |= {"decoder_start_token_id": 1}
IMAGES: dict[str, Any] = {"image_size": IMAGE, "patch_size": 8, "num_channels": 3}
STAGES: dict[str, Any] = {"depths": [1, 1], "hidden_sizes": [16, 32]}
TOWER: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT_TOWER: dict[str, Any] = {**TOWER, "vocab_size": VOCABULARY, "max_position_embeddings": 32, "pad_token_id": 1}
TEXT_TOWER |= {"bos_token_id": 0, "eos_token_id": 2}
LLAMA_TOWER: dict[str, Any] = {**TEXT_TOWER, **GROUPED, "model_type": "llama"}
CLIP_TOWER: dict[str, Any] = {"model_type": "clip_vision_model", "image_size": IMAGE, "patch_size": 16}
SPEECH: dict[str, Any] = {
    "conv_dim": [16, 16],
    "conv_stride": [5, 4],
    "conv_kernel": [10, 6],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "num_feat_extract_layers": 2,
    "mask_time_prob": 0.0,
    "classifier_proj_size": 16,
}

# fmt: off
LIST: list[tuple[str, Any, Mapping[str, Any]]] = [
    # text: decoders
    ("GPT2LMHeadModel", batches.causal, {}),
    ("GPTNeoForCausalLM", batches.causal, {"num_layers": 2, "attention_types": [[["global", "local"], 1]]}),
    ("GPTNeoXForCausalLM", batches.causal, {}),
    ("GPTJForCausalLM", batches.causal, {"rotary_dim": 4}),
    ("GPTBigCodeForCausalLM", batches.causal, {}),
    ("CodeGenForCausalLM", batches.causal, {"rotary_dim": 4}),
    ("OpenAIGPTLMHeadModel", batches.causal, {}),
    ("OPTForCausalLM", batches.causal, {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    ("BloomForCausalLM", batches.causal, {}),
    ("FalconForCausalLM", batches.causal, {}),
    ("MptForCausalLM", batches.causal, {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 32}),
    ("LlamaForCausalLM", batches.causal, GROUPED),
    ("MistralForCausalLM", batches.causal, {**GROUPED, "sliding_window": 8}),
    ("Qwen2ForCausalLM", batches.causal, GROUPED),
    ("Qwen3ForCausalLM", batches.causal, GROUPED),
    ("GemmaForCausalLM", batches.causal, GROUPED),
    ("Gemma2ForCausalLM", batches.causal, GROUPED),
    ("Gemma3ForCausalLM", batches.causal, GROUPED),
    ("PhiForCausalLM", batches.causal, {}),
    ("Phi3ForCausalLM", batches.causal, GROUPED),
    ("StableLmForCausalLM", batches.causal, GROUPED),
    ("CohereForCausalLM", batches.causal, GROUPED),
    ("Olmo2ForCausalLM", batches.causal, GROUPED),
    ("Starcoder2ForCausalLM", batches.causal, {"num_key_value_heads": 2}),
    ("GraniteForCausalLM", batches.causal, GROUPED),
    ("GlmForCausalLM", batches.causal, GROUPED),
    ("ReformerModelWithLMHead", batches.plain_causal, {
        "is_decoder": True, "axial_pos_shape": [4, 3], "axial_pos_embds_dim": [16, 16], "attention_head_size": 8,
        "feed_forward_size": 48, "attn_layers": ["local", "lsh"], "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4, "num_buckets": 2, "hash_seed": 0, "max_position_embeddings": 12,
    }),
    # text: experts
    ("MixtralForCausalLM", batches.causal, {**GROUPED, "num_local_experts": 4}),
    ("Qwen2MoeForCausalLM", batches.causal, {**GROUPED, **EXPERTS, "shared_expert_intermediate_size": 24}),
    ("Qwen3MoeForCausalLM", batches.causal, {**GROUPED, **EXPERTS}),
    ("OlmoeForCausalLM", batches.causal, {"num_experts": 4, "num_experts_per_tok": 2}),
    ("DeepseekV3ForCausalLM", batches.causal, {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 24,
        "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
        "v_head_dim": 8, "num_key_value_heads": 4, "n_shared_experts": 1,
    }),
    ("GptOssForCausalLM", batches.causal, {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    ("SwitchTransformersForConditionalGeneration", batches.translated, {**T5, "num_experts": 2}),
    # text: state spaces and recurrent networks
    ("MambaForCausalLM", batches.plain_causal, {"state_size": 4}),
    ("Mamba2ForCausalLM", batches.plain_causal, {
        "state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 4,
    }),
    ("RwkvForCausalLM", batches.plain_causal, {"attention_hidden_size": 32, "context_length": 32}),
    ("RecurrentGemmaForCausalLM", batches.causal, {**GROUPED, "lru_width": 32, "num_hidden_layers": 3}),
    # text: encoders
    ("BertForSequenceClassification", batches.classified_text, {}),
    ("BertForMaskedLM", batches.causal, {}),
    ("RobertaForMaskedLM", batches.causal, {"max_position_embeddings": 40}),
    ("DistilBertForSequenceClassification", batches.classified_text, {"hidden_dim": 48}),
    ("AlbertForSequenceClassification", batches.classified_text, {"embedding_size": 16}),
    ("ElectraForSequenceClassification", batches.classified_text, {"embedding_size": 16}),
    ("DebertaV2ForSequenceClassification", batches.classified_text, {
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
    }),
    ("ModernBertForSequenceClassification", batches.classified_text, {
        "global_attn_every_n_layers": 2, "local_attention": 8,
    }),
    ("FNetForSequenceClassification", batches.classified_text, {}),
    ("ConvBertForSequenceClassification", batches.classified_text, {"embedding_size": 16, "head_ratio": 2}),
    ("MPNetForSequenceClassification", batches.classified_text, {"max_position_embeddings": 40}),
    ("SqueezeBertForSequenceClassification", batches.classified_text, {"embedding_size": 32}),
    ("RoFormerForMaskedLM", batches.causal, {"embedding_size": 16}),
    ("FunnelForSequenceClassification", batches.classified_text, {
        "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 48,
        "num_hidden_layers": ...,
    }),
    ("BertForQuestionAnswering", batches.spans, {"num_labels": 2}),
    ("BertForMultipleChoice", batches.choices, {}),
    ("XLNetForSequenceClassification", batches.classified_text, {
        "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, **UNBOUNDED,
    }),
    ("PerceiverForMaskedLM", batches.causal, {
        "num_latents": 6, "d_latents": 16, "d_model": 32, "num_blocks": 1, "num_self_attends_per_block": 2,
        "num_self_attention_heads": 2, "num_cross_attention_heads": 2, "max_position_embeddings": 12, "qk_channels": 16,
        "v_channels": 16,
    }),
    # text: encoders and decoders
    ("T5ForConditionalGeneration", batches.translated, T5),
    ("BartForConditionalGeneration", batches.translated, SEQ2SEQ),
    ("PegasusForConditionalGeneration", batches.translated, SEQ2SEQ),
    ("M2M100ForConditionalGeneration", batches.translated, SEQ2SEQ),
    ("MarianMTModel", batches.translated, SEQ2SEQ),
    ("MBartForConditionalGeneration", batches.translated, SEQ2SEQ),
    # images and video
    ("ViTForImageClassification", batches.image, IMAGES),
    ("DeiTForImageClassification", batches.image, IMAGES),
    ("BeitForImageClassification", batches.image, IMAGES),
    ("Dinov2ForImageClassification", batches.image, IMAGES),
    ("SwinForImageClassification", batches.image, {
        "image_size": IMAGE, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2],
        "window_size": 4, "num_attention_heads": ...,
    }),
    ("ConvNextForImageClassification", batches.image, {**STAGES, "num_stages": 2}),
    ("ConvNextV2ForImageClassification", batches.image, {**STAGES, "num_stages": 2}),
    ("FocalNetForImageClassification", batches.image, {
        "image_size": IMAGE, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "focal_levels": [2, 2],
        "focal_windows": [3, 3],
    }),
    ("EfficientNetForImageClassification", batches.image, {
        "image_size": IMAGE, "width_coefficient": 0.25, "depth_coefficient": 0.2, "hidden_dim": 320,
        "initializer_range": 0.3,
        "in_channels": [32, 16, 24], "out_channels": [16, 24, 40], "kernel_sizes": [3, 3, 5], "strides": [1, 2, 2],
        "num_block_repeats": [1, 2, 2], "expand_ratios": [1, 6, 6], "depthwise_padding": [],
    }),
    ("ResNetForImageClassification", batches.image, {**STAGES, "embedding_size": 8}),
    ("PoolFormerForImageClassification", batches.image, {
        "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_encoder_blocks": 4, "patch_size": 7,
    }),
    ("MobileNetV2ForImageClassification", batches.image, {"depth_multiplier": 0.25, "image_size": IMAGE}),
    ("ViTMAEForPreTraining", batches.picture, {
        **IMAGES, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 24,
    }),
    ("SegformerForSemanticSegmentation", batches.segmented, {
        "num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [16, 32], "strides": [4, 2],
        "patch_sizes": [7, 3], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "decoder_hidden_size": 16,
    }),
    ("VideoMAEForVideoClassification", batches.video, {**IMAGES, "num_frames": 4, "tubelet_size": 2}),
    # audio
    ("Wav2Vec2ForCTC", batches.spoken, SPEECH),
    ("HubertForSequenceClassification", batches.waveform, SPEECH),
    ("WavLMForSequenceClassification", batches.waveform, SPEECH),
    ("WhisperForConditionalGeneration", batches.spectrogram, {
        **SEQ2SEQ, "num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 16,
    }),
    ("ASTForAudioClassification", batches.classified_spectrogram, {
        "num_mel_bins": 16, "max_length": 40, "patch_size": 8, "time_stride": 8, "frequency_stride": 8,
    }),
    # several kinds at once
    ("CLIPModel", batches.contrasted, {
        "text_config": TEXT_TOWER, "vision_config": {**TOWER, **IMAGES}, "projection_dim": 16,
    }),
    ("SiglipModel", batches.contrasted, {
        "text_config": {**TEXT_TOWER, "projection_size": 32}, "vision_config": {**TOWER, **IMAGES},
    }),
    ("BlipForConditionalGeneration", batches.shown_text, {
        "text_config": TEXT_TOWER, "vision_config": {**TOWER, **IMAGES}, "projection_dim": 16,
    }),
    ("LlavaForConditionalGeneration", batches.shown_text, {
        "text_config": LLAMA_TOWER,
        "vision_config": {**TOWER, **CLIP_TOWER},
        "image_token_index": 3, "vision_feature_layer": -1,
    }),
    # time series
    ("PatchTSTForPrediction", batches.series, {
        "num_input_channels": 2, "context_length": 32, "prediction_length": 8, "patch_length": 8, "patch_stride": 8,
        "d_model": 32, "ffn_dim": 48, "num_attention_heads": 4, "loss": "mse",
    }),
]
# fmt: on


# What these return in evaluation mode is random.
DRAWS = ("ViTMAEForPreTraining",)


def build(name: str, overrides: Mapping[str, Any]) -> nn.Module:
    """Return a model of this class with random weights."""
    import transformers

    kind = getattr(transformers, name)
    settings = {**COMMON, **overrides}
    return kind(kind.config_class(**{key: value for key, value in settings.items() if value is not ...}))


def architectures() -> list[Architecture]:
    """Return the whole list."""
    return [
        Architecture(name, partial(build, name, overrides), partial(batches.loaders, kind), draws=name in DRAWS)
        for name, kind, overrides in LIST
    ]
