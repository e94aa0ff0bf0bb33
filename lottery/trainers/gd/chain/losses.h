/* Losses, and what of them goes backward. */
#ifndef LOTTERY_LOSSES_H
#define LOTTERY_LOSSES_H

#include "chain.h"

/* Leave the derivative of the mean loss in `delta`, and return this shard's part of the loss. */
static double cross_entropy(const Chain *c, const float *z, float *delta, const int64_t *labels, const int64_t *order,
                            int count, int classes) {
    const int64_t width = c->width;
    const double share = 1.0 / c->batch, even = c->smoothing / classes, own = 1.0 - c->smoothing;
    double loss = 0.0;
    for (int j = 0; j < width; j++) {
        if (j >= count) {
            for (int k = 0; k < classes; k++) delta[k * width + j] = 0.0f;
            continue;
        }
        float most = z[j];
        for (int k = 1; k < classes; k++) most = z[k * width + j] > most ? z[k * width + j] : most;
        float total = 0.0f;
        double mean = 0.0;
        for (int k = 0; k < classes; k++) {
            const float e = expf(z[k * width + j] - most);
            delta[k * width + j] = e;
            total += e;
            if (even != 0.0) mean += z[k * width + j];
        }
        const int64_t label = labels[order[j]];
        const double size = log((double)total) + most;
        loss += own * (size - z[label * width + j]) + (even != 0.0 ? c->smoothing * size - even * mean : 0.0);
        const float scale = 1.0f / total;
        for (int k = 0; k < classes; k++)
            delta[k * width + j] = (float)((delta[k * width + j] * scale - even - (k == label ? own : 0.0)) * share);
    }
    return loss * share;
}

static double squared_error(const Chain *c, const float *z, float *delta, const float *targets, const int64_t *order,
                            int count, int outputs) {
    const int64_t width = c->width;
    const double share = 1.0 / ((double)c->batch * outputs);
    double loss = 0.0;
    for (int j = 0; j < width; j++)
        for (int k = 0; k < outputs; k++) {
            const float off = j < count ? z[k * width + j] - targets[order[j] * outputs + k] : 0.0f;
            loss += (double)off * off;
            delta[k * width + j] = (float)(2.0 * share * off);
        }
    return loss * share;
}

#endif
