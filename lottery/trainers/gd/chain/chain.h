/* What a chain is, as `library.py` fills it in, and how much memory it needs. */
#ifndef LOTTERY_CHAIN_H
#define LOTTERY_CHAIN_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "products.h"

#define MOST_LAYERS 64
#define MOST_THREADS 256

enum { IDENTITY, RELU, TANH, SIGMOID };
enum { CROSS_ENTROPY, SQUARED_ERROR };
enum { SGD, ADAM, ADAMW };

/* y[m, n] = op(a) op(b), in Fortran's order of arguments and of memory. */
typedef void (*Product)(const char *, const char *, const int *, const int *, const int *, const float *, const float *,
                        const int *, const float *, const int *, const float *, float *, const int *);
typedef int (*Threads)(int);

typedef struct { /* one trained tensor */
    float *values, *gradients /* [shards][count] */, *first, *second;
    const uint8_t *keep; /* NULL where nothing is removed */
    int64_t count;
    double factor; /* of the learning rate */
    int32_t trained;
} Tensor;

typedef struct {
    int32_t inputs, outputs, activation, weight, bias /* numbers of tensors; -1 for no bias */;
    Pattern rows, columns;  /* of a sparse layer; NULLs for a dense one */
    Pattern seen;           /* rows without the weights of inputs that are 0 in every example for training */
    const uint8_t *wanted; /* units that something reads; NULL for all */
} Layer;

typedef struct {
    Layer *layers;
    Tensor *tensors;
    float *scratch;
    Product product;
    Threads threads;
    int32_t depth, count, shards, width /* of one shard, a multiple of LANES */, batch;
    int32_t loss, optimizer, nesterov;
    double smoothing, momentum, decay, beta1, beta2, epsilon, clip /* 0 for none */;
} Chain;

typedef struct {
    const float *inputs;  /* [examples][inputs] */
    const void *targets;  /* int64 [examples], or float [examples][outputs] */
    const int64_t *order; /* [steps][batch] */
    const double *rates;  /* [steps] */
    int64_t steps, done;  /* done: steps before these, since the optimizer began */
    int32_t threads;
    double loss;          /* out: the sum of the steps' losses */
    double *seconds;      /* out, by part of a step, of the first shard and thread; NULL where nobody asks */
} Run;

enum { GATHER, FORWARD, LOSS, BACKWARD, WAIT, UPDATE };

static int64_t widest(const Chain *c) {
    int64_t most = 0;
    for (int l = 0; l < c->depth; l++) most = c->layers[l].outputs > most ? c->layers[l].outputs : most;
    return most;
}

/* Numbers that one shard needs: activations of every layer, and two rows of deltas. */
static int64_t per_shard(const Chain *c) {
    int64_t rows = c->layers[0].inputs + 2 * widest(c);
    for (int l = 0; l < c->depth; l++) rows += c->layers[l].outputs;
    return rows * c->width;
}

#endif
