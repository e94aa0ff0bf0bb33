/* Optimizer steps of a chain of fully connected layers, dense and sparse ones, without anything around them.
 *
 *   gather ─▶ forward ─▶ loss ─▶ backward ─▶ sum over workers ─▶ optimizer
 *
 * Activations and deltas are feature-major, [features][width]: the examples of a feature side by side, so that a kept
 * weight is one multiplication with a row. A batch is cut into shards of examples; each goes through forward and
 * backward by itself, and the shards' gradients are added in their order. A thread takes one shard or several, so that
 * the bits depend on the number of shards, and not on that of threads nor on when any of them was done. Threads meet
 * twice a step. Who waits, spins for some microseconds and then sleeps: a busy machine slows this down by what it takes
 * away, and by no more.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "layers.h"
#include "losses.h"
#include "meeting.h"
#include "optimizers.h"

/* How many numbers `scratch` must have room for. */
int64_t scratch_size(const Chain *c) { return per_shard(c) * c->shards; }

/* Add the time since `*mark` to a part, and begin the next. */
static void note(double *seconds, int part, double *mark) {
    if (!seconds) return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const double time = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    if (part >= 0) seconds[part] += time - *mark;
    *mark = time;
}

typedef struct {
    Chain *chain;
    Run *run;
    Meeting *meeting;
    double *losses, *norms; /* [shards] */
    pthread_mutex_t *gate;  /* open when all threads are there */
    const int *error;       /* set where one could not be started: the others go home */
    int number;
} Worker;

/* Leave the gradients of one shard of a batch, and return its part of the loss. */
static double shard_of(const Chain *c, const Run *run, const int64_t *order, int shard) {
    const int64_t width = c->width, first = shard * width;
    const int left = (int)(c->batch - first), count = left < 0 ? 0 : left < width ? left : (int)width;
    const int outputs = c->layers[c->depth - 1].outputs;
    float *acts[MOST_LAYERS + 1], *space = c->scratch + shard * per_shard(c);
    acts[0] = space, space += c->layers[0].inputs * width;
    for (int l = 0; l < c->depth; l++) acts[l + 1] = space, space += c->layers[l].outputs * width;
    float *delta = space, *below = space + widest(c) * width;
    double mark = 0.0, *seconds = shard ? NULL : run->seconds;
    order += first;
    note(seconds, -1, &mark);
    gather(run->inputs, order, count, c->layers[0].inputs, acts[0], width);
    note(seconds, GATHER, &mark);
    for (int l = 0; l < c->depth; l++) forward(c, &c->layers[l], c->layers[l].seen, acts[l], acts[l + 1]);
    note(seconds, FORWARD, &mark);
    const double loss = c->loss == CROSS_ENTROPY
                            ? cross_entropy(c, acts[c->depth], delta, run->targets, order, count, outputs)
                            : squared_error(c, acts[c->depth], delta, run->targets, order, count, outputs);
    note(seconds, LOSS, &mark);
    for (int l = c->depth - 1; l >= 0; l--) {
        const Layer *layer = &c->layers[l];
        deactivate(delta, acts[l + 1], layer->outputs * width, layer->activation);
        gradients(c, layer, acts[l], delta, shard);
        if (l) backward(c, layer, delta, below);
        float *swap = delta;
        delta = below, below = swap;
    }
    note(seconds, BACKWARD, &mark);
    return loss;
}

static void *work(void *given) {
    const Worker *self = given;
    const Chain *c = self->chain;
    Run *run = self->run;
    pthread_mutex_lock(self->gate);
    pthread_mutex_unlock(self->gate);
    if (*self->error) return NULL;
    const int before = c->threads ? c->threads(1) : 0;
    double mark = 0.0, *seconds = self->number ? NULL : run->seconds;
#define MY_SHARDS int shard = self->number; shard < c->shards; shard += run->threads
    for (int64_t s = 0; s < run->steps; s++) {
        for (MY_SHARDS) self->losses[shard] = shard_of(c, run, run->order + s * c->batch, shard);
        note(seconds, -1, &mark);
        meet(self->meeting);
        note(seconds, WAIT, &mark);
        if (self->number == 0)
            for (int shard = 0; shard < c->shards; shard++) run->loss += self->losses[shard];
        for (MY_SHARDS) self->norms[shard] = collect(c, shard, c->clip > 0.0);
        if (c->clip > 0.0) meet(self->meeting);
        const float scale = c->clip > 0.0 ? clipped(c, self->norms) : 1.0f;
        for (MY_SHARDS) update(c, shard, run->rates[s], run->done + s + 1, scale);
        note(seconds, UPDATE, &mark);
        meet(self->meeting);
        note(seconds, WAIT, &mark);
    }
    if (c->threads) c->threads(before);
    return NULL;
}

/* Returns 0, or the system's error where memory or a thread could not be had: nothing was done then. */
int run_steps(Chain *c, Run *run) {
    const int threads = run->threads;
    Meeting meeting = {.count = threads};
    pthread_mutex_t gate;
    pthread_mutex_init(&gate, NULL);
    pthread_mutex_init(&meeting.lock, NULL);
    pthread_cond_init(&meeting.next, NULL);
    double *sums = calloc(2 * (size_t)c->shards, sizeof(double));
    Worker *team = calloc((size_t)threads, sizeof(Worker));
    pthread_t *others = calloc((size_t)threads, sizeof(pthread_t));
    int error = sums && team && others ? 0 : ENOMEM, started = 1;
    run->loss = 0.0;
    pthread_mutex_lock(&gate);
    for (int w = 0; !error && w < threads; w++)
        team[w] = (Worker){c, run, &meeting, sums, sums + c->shards, &gate, &error, w};
    while (!error && started < threads) {
        error = pthread_create(&others[started], NULL, work, &team[started]);
        started += !error;
    }
    pthread_mutex_unlock(&gate);
    if (!error) work(&team[0]);
    for (int w = 1; w < started; w++) pthread_join(others[w], NULL);
    free(sums), free(team), free(others);
    return error;
}

typedef struct {
    const Chain *chain;
    const float *inputs;
    float *outputs;
    int64_t from, to, stride;
    int shard; /* in whose memory activations lie */
} Ahead;

static void *go_ahead(void *given) {
    const Ahead *a = given;
    const Chain *c = a->chain;
    const int before = c->threads ? c->threads(1) : 0;
    const int64_t width = c->width;
    float *acts[MOST_LAYERS + 1], *space = c->scratch + a->shard * per_shard(c);
    acts[0] = space, space += c->layers[0].inputs * width;
    for (int l = 0; l < c->depth; l++) acts[l + 1] = space, space += c->layers[l].outputs * width;
    for (int64_t at = a->from; at < a->to; at += width) {
        const int count = (int)(a->to - at < width ? a->to - at : width);
        gather(a->inputs + at * c->layers[0].inputs, NULL, count, c->layers[0].inputs, acts[0], width);
        for (int l = 0; l < c->depth; l++) forward(c, &c->layers[l], c->layers[l].rows, acts[l], acts[l + 1]);
        for (int k = 0; k < c->layers[c->depth - 1].outputs; k++)
            memcpy(a->outputs + k * a->stride + at, acts[c->depth] + k * width, (size_t)count * sizeof(float));
    }
    if (c->threads) c->threads(before);
    return NULL;
}

/* Outputs [outputs][count] of rows of `inputs`. A thread takes whole blocks of examples, so that the bits do not depend
 * on how many there are; where one cannot be started, the caller's takes its part. */
void run_forward(const Chain *c, const float *inputs, int64_t count, float *outputs, int32_t threads) {
    const int64_t blocks = (count + c->width - 1) / c->width;
    const int parts = threads < c->shards ? threads : c->shards;
    pthread_t others[MOST_THREADS];
    Ahead aheads[MOST_THREADS];
    int started[MOST_THREADS] = {0};
    for (int t = parts - 1; t >= 0; t--) {
        const int64_t to = blocks * (t + 1) / parts * c->width;
        aheads[t] = (Ahead){c, inputs, outputs, blocks * t / parts * c->width, to < count ? to : count, count, t};
        started[t] = t > 0 && !pthread_create(&others[t], NULL, go_ahead, &aheads[t]);
        if (!started[t]) go_ahead(&aheads[t]);
    }
    for (int t = 1; t < parts; t++)
        if (started[t]) pthread_join(others[t], NULL);
}
