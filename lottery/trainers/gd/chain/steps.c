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
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "products.h"
#include "turning.h"

#define MOST_LAYERS 64
#define MOST_THREADS 256
#define SPINS 4000

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

typedef struct {
    atomic_int arrived, phase;
    int count;
    pthread_mutex_t lock;
    pthread_cond_t next;
} Meeting;

/* Add the time since `*mark` to a part, and begin the next. */
static void note(double *seconds, int part, double *mark) {
    if (!seconds) return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const double time = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    if (part >= 0) seconds[part] += time - *mark;
    *mark = time;
}

static void meet(Meeting *m) {
    if (m->count == 1) return;
    const int phase = atomic_load(&m->phase);
    if (atomic_fetch_add(&m->arrived, 1) + 1 == m->count) {
        atomic_store(&m->arrived, 0);
        pthread_mutex_lock(&m->lock);
        atomic_store(&m->phase, phase + 1);
        pthread_cond_broadcast(&m->next);
        pthread_mutex_unlock(&m->lock);
        return;
    }
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&m->phase, memory_order_acquire) != phase) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&m->lock);
    while (atomic_load(&m->phase) == phase) pthread_cond_wait(&m->next, &m->lock);
    pthread_mutex_unlock(&m->lock);
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

int64_t scratch_size(const Chain *c) { return per_shard(c) * c->shards; }

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

/* By how much clipping scales the gradients, whose squares have these sums. */
static float clipped(const Chain *c, const double *squares) {
    double total = 0.0;
    for (int s = 0; s < c->shards; s++) total += squares[s];
    const double wanted = c->clip / (sqrt(total) + 1e-6);
    return wanted >= 1.0 ? 1.0f : (float)wanted; /* not a number stays one */
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
