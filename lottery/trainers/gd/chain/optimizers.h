/* From the shards' gradients to new weights. */
#ifndef LOTTERY_OPTIMIZERS_H
#define LOTTERY_OPTIMIZERS_H

#include "chain.h"

/* The part of a tensor that belongs to a shard when gradients are added and weights move, in whole vectors. */
static void part_of(int64_t count, int shard, int shards, int64_t *from, int64_t *to) {
    const int64_t pieces = (count + LANES - 1) / LANES;
    *from = pieces * shard / shards * LANES;
    *to = pieces * (shard + 1) / shards * LANES;
    if (*to > count) *to = count;
}

/* Add the shards' gradients into the first, where a weight is kept; return the sum of squares if anybody asks. */
static double collect(const Chain *c, int shard, int squares) {
    double total = 0.0;
    for (int i = 0; i < c->count; i++) {
        const Tensor *t = &c->tensors[i];
        if (!t->trained) continue;
        int64_t from, to;
        part_of(t->count, shard, c->shards, &from, &to);
        float *g = t->gradients;
        for (int other = 1; other < c->shards; other++) {
            const float *more = t->gradients + other * t->count;
            for (int64_t k = from; k < to; k++) g[k] += more[k];
        }
        if (t->keep)
            for (int64_t k = from; k < to; k++) g[k] = t->keep[k] ? g[k] : 0.0f;
        if (squares)
            for (int64_t k = from; k < to; k++) total += (double)g[k] * g[k];
    }
    return total;
}

static void update(const Chain *c, int shard, double rate, int64_t step, float scale) {
    const float momentum = (float)c->momentum, decay = (float)c->decay;
    for (int i = 0; i < c->count; i++) {
        const Tensor *t = &c->tensors[i];
        if (!t->trained) continue;
        int64_t from, to;
        part_of(t->count, shard, c->shards, &from, &to);
        const double lr = rate * t->factor;
        float *w = t->values, *g = t->gradients, *m = t->first, *v = t->second;
        if (scale != 1.0f)
            for (int64_t k = from; k < to; k++) g[k] *= scale;
        if (c->optimizer == SGD) {
            const float size = (float)lr;
            if (momentum == 0.0f)
                for (int64_t k = from; k < to; k++) w[k] -= size * (g[k] + decay * w[k]);
            else if (c->nesterov)
                for (int64_t k = from; k < to; k++) {
                    const float d = g[k] + decay * w[k];
                    m[k] = momentum * m[k] + d;
                    w[k] -= size * (d + momentum * m[k]);
                }
            else
                for (int64_t k = from; k < to; k++) {
                    m[k] = momentum * m[k] + (g[k] + decay * w[k]);
                    w[k] -= size * m[k];
                }
            continue;
        }
        const float coupled = c->optimizer == ADAM ? decay : 0.0f;
        const float shrink = c->optimizer == ADAMW ? (float)(1.0 - lr * c->decay) : 1.0f;
        const float b1 = (float)c->beta1, b2 = (float)c->beta2, n1 = (float)(1.0 - c->beta1), n2 = (float)(1.0 - c->beta2);
        const float size = (float)(lr / (1.0 - pow(c->beta1, (double)step)));
        const float root = (float)(1.0 / sqrt(1.0 - pow(c->beta2, (double)step))), epsilon = (float)c->epsilon;
        for (int64_t k = from; k < to; k++) {
            const float old = w[k] * shrink, d = g[k] + coupled * old;
            m[k] = b1 * m[k] + n1 * d;
            v[k] = b2 * v[k] + n2 * d * d;
            w[k] = old - size * m[k] / (sqrtf(v[k]) * root + epsilon);
        }
    }
}

/* By how much clipping scales the gradients, whose squares have these sums. */
static float clipped(const Chain *c, const double *squares) {
    double total = 0.0;
    for (int s = 0; s < c->shards; s++) total += squares[s];
    const double wanted = c->clip / (sqrt(total) + 1e-6);
    return wanted >= 1.0 ? 1.0f : (float)wanted; /* not a number stays one */
}

#endif
