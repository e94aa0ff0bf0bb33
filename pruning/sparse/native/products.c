/* The product of a sparse matrix with activations of any layout, and its gradients, by as many threads as are given.
 *
 * Examples are taken in blocks of WIDTH columns. A block is packed, [features][width], so that a kept weight is one
 * multiplication with a row of it that lies in the cache; what is packed in the forward pass serves the gradients. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "products.h"
#include "threads.h"
#include "turning.h"

#define WIDTH (8 * LANES)

typedef struct {
    float *data;
    int64_t features, by_feature, by_example; /* strides; one of both is 1 */
} Activations;

typedef struct {
    Pattern pattern, turned; /* of the matrix, and of its transpose, whose `at` finds the values */
    const float *values;
    Activations in, out; /* out.data may be NULL: then `in` is packed, and that is all */
    float *packed_in;
    int64_t batch, parts /* of a block, each of whole vectors */;
    atomic_long next;
    atomic_int error;
} Sums;

typedef struct {
    Pattern pattern, turned;
    const float *packed_in, *packed_out;
    float *slopes;
    int64_t inputs, outputs, batch, chunks;
    atomic_long next;
} Slopes;

static int64_t width_of(int64_t batch, int64_t block) {
    const int64_t left = batch - block * WIDTH;
    return left >= WIDTH ? WIDTH : (left + LANES - 1) / LANES * LANES;
}

static void pack(Activations a, int64_t first, int64_t count, float *to, int64_t width, int64_t from, int64_t until) {
    const int64_t there = count - from < until - from ? count - from : until - from; /* columns with an example */
    const int64_t whole = there < 0 ? 0 : there;
    if (a.by_feature == 1)
        turn(a.data + (first + from) * a.by_example, a.by_example, to + from, width, whole, a.features);
    else
        for (int64_t f = 0; f < a.features; f++)
            memcpy(to + f * width + from, a.data + f * a.by_feature + first + from, (size_t)whole * sizeof(float));
    if (from + whole < until)
        for (int64_t f = 0; f < a.features; f++)
            for (int64_t j = from + whole; j < until; j++) to[f * width + j] = 0.0f;
}

static void unpack(Activations a, int64_t first, int64_t count, const float *from_block, int64_t width, int64_t from,
                   int64_t until) {
    const int64_t last = count < until ? count : until, there = last - from;
    if (there <= 0) return;
    if (a.by_feature == 1)
        turn(from_block + from, width, a.data + (first + from) * a.by_example, a.by_example, a.features, there);
    else
        for (int64_t f = 0; f < a.features; f++)
            memcpy(a.data + f * a.by_feature + first + from, from_block + f * width + from,
                   (size_t)there * sizeof(float));
}

/* The same sums, column by column, where a block of inputs is too large for the cache: each of its rows is read once,
 * and the outputs stay there. */
#define SPREAD(BLOCK)                                                                                                  \
    static void spread_##BLOCK(Pattern p, const float *values, const float *in, float *out, int64_t columns,           \
                               int64_t width) {                                                                        \
        for (int64_t c = 0; c < columns; c++) {                                                                        \
            vector x[BLOCK];                                                                                           \
            for (int j = 0; j < BLOCK; j++) x[j] = ((const vector *)(in + c * width))[j];                              \
            for (int32_t k = p.starts[c]; k < p.starts[c + 1]; k++) {                                                  \
                const float value = values[p.at ? p.at[k] : k];                                                        \
                vector *y = (vector *)(out + p.columns[k] * width);                                                    \
                for (int j = 0; j < BLOCK; j++) y[j] += value * x[j];                                                  \
            }                                                                                                          \
        }                                                                                                              \
    }

SPREAD(8)
SPREAD(4)
SPREAD(2)
SPREAD(1)

#define IN_CACHE (1 << 18)
#define LINE (IN_CACHE / 4)

/* Whether a block of inputs is too large for the cache, and one of outputs is not. */
static int is_wide(int64_t inputs, int64_t outputs, int64_t batch) {
    const int64_t width = width_of(batch, 0);
    return inputs * width > IN_CACHE && outputs * width <= LINE;
}

/* `line` has room for outputs that stay in the cache until they are where they belong. */
static void part_of_sums(const Sums *s, int64_t block, int64_t part, float *line) {
    const int64_t width = width_of(s->batch, block), vectors = width / LANES, first = block * WIDTH;
    const int64_t count = s->batch - first < width ? s->batch - first : width;
    const int64_t begin = vectors * part / s->parts * LANES, end = vectors * (part + 1) / s->parts * LANES;
    float *in = s->packed_in + first * s->in.features;
    pack(s->in, first, count, in, width, begin, end);
    if (!s->out.data) return;
    const Pattern p = s->pattern;
    const int wide = is_wide(s->in.features, s->out.features, s->batch);
    const int64_t most = LINE / width;
    for (int64_t r = 0; r < s->out.features; r += most) {
        const int rows = (int)(s->out.features - r < most ? s->out.features - r : most);
        if (wide) memset(line, 0, (size_t)(rows * width) * sizeof(float));
        int64_t from = begin;
#define TAKE(BLOCK)                                                                                                    \
    wide ? spread_##BLOCK(s->turned, s->values, in + from, line + from, s->in.features, width)                         \
         : sums_##BLOCK(p.starts + r, p.columns, p.at, s->values, NULL, NULL, in + from, line + from, rows, width)
        for (int64_t left = (end - from) / LANES; left; left = (end - from) / LANES) {
            if (left >= 8) TAKE(8), from += 8 * LANES;
            else if (left >= 4) TAKE(4), from += 4 * LANES;
            else if (left >= 2) TAKE(2), from += 2 * LANES;
            else TAKE(1), from += LANES;
        }
        const Activations some = {s->out.data + r * s->out.by_feature, rows, s->out.by_feature, s->out.by_example};
        unpack(some, first, count, line, width, begin, end);
    }
}

static void take_sums(void *given) {
    Sums *s = given;
    const int64_t blocks = (s->batch + WIDTH - 1) / WIDTH;
    const int64_t all = s->out.features * width_of(s->batch, 0), room = all < LANES ? LANES : all < LINE ? all : LINE;
    float *line = aligned_alloc(sizeof(vector), (size_t)room * sizeof(float));
    if (!line) {
        s->error = ENOMEM;
        return;
    }
    for (int64_t i; (i = atomic_fetch_add(&s->next, 1)) < blocks * s->parts;)
        part_of_sums(s, i / s->parts, i % s->parts, line);
    free(line);
}

/* The first row whose weights begin at or after a share of all weights. */
static int row_at(const int32_t *starts, int64_t rows, int64_t chunk, int64_t chunks) {
    const int64_t wanted = (int64_t)starts[rows] * chunk / chunks;
    int64_t low = 0, high = rows;
    if (chunk == chunks) return (int)rows;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (starts[middle] < wanted) low = middle + 1;
        else high = middle;
    }
    return (int)low;
}

static void take_slopes(void *given) {
    Slopes *s = given;
    const int64_t blocks = (s->batch + WIDTH - 1) / WIDTH;
    const int wide = is_wide(s->inputs, s->outputs, s->batch); /* then row by row of the transpose */
    const Pattern p = wide ? s->turned : s->pattern;
    const int64_t rows = wide ? s->inputs : s->outputs, columns = wide ? s->outputs : s->inputs;
    for (int64_t i; (i = atomic_fetch_add(&s->next, 1)) < s->chunks;) {
        const int begin = row_at(p.starts, rows, i, s->chunks), end = row_at(p.starts, rows, i + 1, s->chunks);
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t width = width_of(s->batch, b);
            const float *inner = (wide ? s->packed_out : s->packed_in) + b * WIDTH * columns;
            const float *outer = (wide ? s->packed_in : s->packed_out) + b * WIDTH * rows;
            for (int64_t from = 0; from < width;) {
                const int64_t left = (width - from) / LANES;
                const int add = b > 0 || from > 0;
#define TAKE_SLOPES(BLOCK)                                                                                             \
    slopes_##BLOCK(p.starts + begin, p.columns, p.at, NULL, inner + from, outer + begin * width + from, s->slopes,     \
                   end - begin, width, add)
                if (left >= 8) TAKE_SLOPES(8), from += 8 * LANES;
                else if (left >= 4) TAKE_SLOPES(4), from += 4 * LANES;
                else if (left >= 2) TAKE_SLOPES(2), from += 2 * LANES;
                else TAKE_SLOPES(1), from += LANES;
            }
        }
    }
}

/* out = W in, with `in` packed on the way; `out.data` NULL packs it alone. Packed: 64-byte aligned,
 * [features * batch rounded up to LANES]. Returns 0, or the system's error where there is no memory. */
int product_sums(Parallel parallel, int32_t threads, Pattern pattern, Pattern turned, const float *values, Activations in,
                 Activations out, float *packed_in, int64_t batch) {
    const int64_t blocks = (batch + WIDTH - 1) / WIDTH, narrow = batch < WIDTH ? width_of(batch, 0) / LANES : 8;
    int64_t parts = blocks && threads > blocks ? (threads + blocks - 1) / blocks : 1;
    if (parts > (narrow + 1) / 2) parts = (narrow + 1) / 2;
    Sums sums = {pattern, turned, values, in, out, packed_in, batch, parts, 0, 0};
    on_threads(parallel, threads, take_sums, &sums);
    return sums.error;
}

/* slopes[k] = delta . in of the k-th kept weight, from both as they were packed. */
void product_slopes(Parallel parallel, int32_t threads, Pattern pattern, Pattern turned, const float *packed_in,
                    const float *packed_out, float *slopes, int64_t inputs, int64_t outputs, int64_t batch) {
    Slopes work = {pattern, turned, packed_in, packed_out, slopes, inputs, outputs, batch, threads > 1 ? 4 * threads : 1, 0};
    on_threads(parallel, threads, take_slopes, &work);
}
