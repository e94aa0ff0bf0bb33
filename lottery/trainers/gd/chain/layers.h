/* A batch of examples as columns, and one layer forward and backward. */
#ifndef LOTTERY_LAYERS_H
#define LOTTERY_LAYERS_H

#include "chain.h"
#include "turning.h"

/* Rows of `inputs`, in this order or as they are, become columns of x [features][width]; what is left over is 0. */
static void gather(const float *inputs, const int64_t *order, int count, int features, float *x, int64_t width) {
    for (int b = 0; b < width; b += LANES) {
        const float *from[LANES];
        for (int j = 0; j < LANES; j++) from[j] = b + j < count ? inputs + (order ? order[b + j] : b + j) * features : NULL;
        if (b + LANES <= count) {
            int i = 0;
            for (; i + LANES <= features; i += LANES) {
                vector tile[LANES];
                for (int j = 0; j < LANES; j++) memcpy(&tile[j], from[j] + i, sizeof(vector));
                turn_vectors(tile);
                for (int j = 0; j < LANES; j++) *(vector *)(x + (i + j) * width + b) = tile[j];
            }
            for (; i < features; i++)
                for (int j = 0; j < LANES; j++) x[i * width + b + j] = from[j][i];
        } else {
            for (int i = 0; i < features; i++)
                for (int j = 0; j < LANES; j++) x[i * width + b + j] = from[j] ? from[j][i] : 0.0f;
        }
    }
}

static void activate(float *y, int64_t count, int kind) {
    if (kind == RELU)
        for (int64_t i = 0; i < count; i++) y[i] = y[i] > 0.0f ? y[i] : (y[i] != y[i] ? y[i] : 0.0f);
    else if (kind == TANH)
        for (int64_t i = 0; i < count; i++) y[i] = tanhf(y[i]);
    else if (kind == SIGMOID)
        for (int64_t i = 0; i < count; i++) y[i] = 1.0f / (1.0f + expf(-y[i]));
}

/* Multiply deltas by the derivative, which each activation here gives from its own value. */
static void deactivate(float *delta, const float *y, int64_t count, int kind) {
    if (kind == RELU)
        for (int64_t i = 0; i < count; i++) delta[i] = y[i] > 0.0f ? delta[i] : 0.0f;
    else if (kind == TANH)
        for (int64_t i = 0; i < count; i++) delta[i] *= 1.0f - y[i] * y[i];
    else if (kind == SIGMOID)
        for (int64_t i = 0; i < count; i++) delta[i] *= y[i] * (1.0f - y[i]);
}

static void forward(const Chain *c, const Layer *l, Pattern rows, const float *x, float *y) {
    const float *w = c->tensors[l->weight].values, *bias = l->bias < 0 ? NULL : c->tensors[l->bias].values;
    const int64_t width = c->width;
    if (rows.starts) {
        sparse_sums(rows, w, bias, l->wanted, x, y, l->outputs, width);
    } else {
        const float one = 1.0f, kept = bias ? 1.0f : 0.0f;
        if (bias)
            for (int r = 0; r < l->outputs; r++)
                for (int j = 0; j < width; j++) y[r * width + j] = bias[r];
        c->product("N", "N", &c->width, &l->outputs, &l->inputs, &one, x, &c->width, w, &l->inputs, &kept, y, &c->width);
    }
    activate(y, l->outputs * width, l->activation);
}

static void gradients(const Chain *c, const Layer *l, const float *x, const float *delta, int shard) {
    const Tensor *w = &c->tensors[l->weight];
    const int64_t width = c->width;
    if (w->trained) {
        float *slopes = w->gradients + shard * w->count;
        if (l->rows.starts) {
            sparse_slopes(l->seen, l->wanted, x, delta, slopes, l->outputs, width);
        } else {
            const float one = 1.0f, zero = 0.0f;
            c->product("T", "N", &l->inputs, &l->outputs, &c->width, &one, x, &c->width, delta, &c->width, &zero,
                       slopes, &l->inputs);
        }
    }
    if (l->bias >= 0 && c->tensors[l->bias].trained) {
        const Tensor *b = &c->tensors[l->bias];
        for (int r = 0; r < l->outputs; r++) {
            vector total = {0};
            for (int j = 0; j < width; j += LANES) total += *(const vector *)(delta + r * width + j);
            b->gradients[shard * b->count + r] = sum_of(total);
        }
    }
}

static void backward(const Chain *c, const Layer *l, const float *delta, float *below) {
    const float *w = c->tensors[l->weight].values;
    if (l->rows.starts) {
        sparse_sums(l->columns, w, NULL, NULL, delta, below, l->inputs, c->width);
    } else {
        const float one = 1.0f, zero = 0.0f;
        c->product("N", "T", &c->width, &l->inputs, &l->outputs, &one, delta, &c->width, w, &l->inputs, &zero, below,
                   &c->width);
    }
}

#endif
