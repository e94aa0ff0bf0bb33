"""Which steps refuse which architectures, and what the one line of the refusal must say; all other steps go right."""

from __future__ import annotations

from collections.abc import Mapping

UNTRACEABLE = "torch.export cannot take this network, neither with a free batch size"
UNCONVERTED = "torch.onnx cannot take this network with a free batch size"
OTHER_OUTPUTS = "the onnx file gives other outputs than the masked dense network"
OBJECTS = "its batches hold more than tensors with the examples along the first axis"
READS = "reads the values of a tensor"
DRAWS = "draws random numbers even in evaluation mode, and evolution needs a pure function"

REFUSED: Mapping[str, Mapping[str, str]] = {
    # lengths and shapes that follow from values
    "packs-by-lengths": {"onnx": UNTRACEABLE, "es": "uses aten::_pack_padded_sequence, which has no JAX form"},
    "packed-batches": {"onnx": "the model takes a PackedSequence, which no traced network takes", "es": OBJECTS},
    "graph-convolution": {"onnx": "takes tensors inside of Graphs, which no traced network takes", "es": OBJECTS},
    "DebertaV2ForSequenceClassification": {"onnx": UNTRACEABLE},
    "Wav2Vec2ForCTC": {"onnx": UNTRACEABLE},
    # branches on values
    "data-dependent": {"onnx": UNTRACEABLE, "es": f"DataDependent {READS}"},
    "early-exit": {"onnx": UNTRACEABLE, "es": f"EarlyExit {READS}"},
    "energy-gradient": {"onnx": UNTRACEABLE},
    # what is random in evaluation mode
    "variational": {"es": f"Variational {DRAWS}"},
    "ViTMAEForPreTraining": {"onnx": OTHER_OUTPUTS, "es": f"vit.embeddings .ViTMAEEmbeddings. {DRAWS}"},
    "ReformerModelWithLMHead": {"onnx": OTHER_OUTPUTS},
    # weights that eval() writes
    "lora-merges": {"es": "writes its parameter '0.weight', as a layer that merges an adapter does"},
    # outputs of classes that torch.export does not know
    "returns-dataclass": {"onnx": UNTRACEABLE},
    "mixture-density": {"onnx": UNTRACEABLE},
    # what torch.onnx or onnxruntime lack
    "complex": {"onnx": UNCONVERTED},
    "bfloat16": {"onnx": "'0.weight' is bfloat16, which onnxruntime does not take from NumPy"},
    "XLNetForSequenceClassification": {"onnx": UNCONVERTED},
    # experts that are chosen by value
    "experts-3d": {"onnx": OTHER_OUTPUTS},
    "MixtralForCausalLM": {"onnx": UNCONVERTED},
    "Qwen2MoeForCausalLM": {"onnx": UNCONVERTED},
    "Qwen3MoeForCausalLM": {"onnx": UNCONVERTED},
    "OlmoeForCausalLM": {"onnx": UNCONVERTED},
    "DeepseekV3ForCausalLM": {"onnx": UNCONVERTED},
    "GptOssForCausalLM": {"onnx": UNCONVERTED},
    "LlavaForConditionalGeneration": {"onnx": UNCONVERTED},
}
