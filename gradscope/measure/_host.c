/* Float32 in host memory -> raw sums, magnitude counts and silent channels, in one read.
 *
 * Sums are added up in float64, in lanes that the compiler turns into vector registers; a chunk
 * stays in the first-level cache while its sample is counted. The contract is that of blocks.py
 * and histogram.py, which stand in where this file was not compiled. Knows no tensors: addresses
 * and counts come from the caller, who keeps the memory alive and dense.
 */
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define CHUNK 4096
#define LANES 16
#define THREADS 16       /* at most, of those torch has */
#define SHARE (1 << 15)  /* elements that are worth a thread */
#define BINS 277         /* exponents -149 .. 127 */
#define INFINITE 0x7f800000u
#define CANCELLED 1e-6   /* share of the squares below which the centered ones get a second pass */

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define FOR_EACH_MACHINE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_MACHINE
#endif

typedef struct {
    double total, square;
    uint64_t zeros, bad;
    uint32_t largest; /* bits of the largest finite magnitude: they are ordered as the floats are */
} Sums;

static inline uint32_t magnitude(const float *x) {
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    return bits & 0x7fffffffu;
}

FOR_EACH_MACHINE
static void add_chunk(const float *x, size_t n, Sums *sums) {
    double total[LANES] = {0}, square[LANES] = {0};
    uint32_t largest[LANES] = {0}, zeros[LANES] = {0};
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) {
            double value = x[i + j];
            uint32_t bits = magnitude(x + i + j);
            total[j] += value;
            square[j] += value * value;
            largest[j] = bits > largest[j] ? bits : largest[j];
            zeros[j] += bits == 0;
        }
    for (size_t i = whole; i < n; i++) {
        double value = x[i];
        uint32_t bits = magnitude(x + i);
        total[0] += value;
        square[0] += value * value;
        largest[0] = bits > largest[0] ? bits : largest[0];
        zeros[0] += bits == 0;
    }
    Sums chunk = {0};
    for (int j = 0; j < LANES; j++) {
        chunk.total += total[j];
        chunk.square += square[j];
        chunk.zeros += zeros[j];
        chunk.largest = largest[j] > chunk.largest ? largest[j] : chunk.largest;
    }
    if (chunk.largest >= INFINITE) { /* rare: again, over the finite elements */
        memset(&chunk, 0, sizeof chunk);
        for (size_t i = 0; i < n; i++) {
            double value = x[i];
            uint32_t bits = magnitude(x + i);
            if (bits >= INFINITE) {
                chunk.bad++;
                continue;
            }
            chunk.total += value;
            chunk.square += value * value;
            chunk.zeros += bits == 0;
            chunk.largest = bits > chunk.largest ? bits : chunk.largest;
        }
    }
    sums->total += chunk.total;
    sums->square += chunk.square;
    sums->zeros += chunk.zeros;
    sums->bad += chunk.bad;
    sums->largest = chunk.largest > sums->largest ? chunk.largest : sums->largest;
}

FOR_EACH_MACHINE
static double centered_squares(const float *x, size_t n, double mean) {
    double all = 0;
    for (size_t start = 0; start < n; start += CHUNK) {
        size_t end = n - start < CHUNK ? n : start + CHUNK;
        double lanes[LANES] = {0};
        for (size_t i = start; i < end; i++) {
            double away = magnitude(x + i) >= INFINITE ? 0 : x[i] - mean;
            lanes[i % LANES] += away * away;
        }
        for (int j = 0; j < LANES; j++)
            all += lanes[j];
    }
    return all;
}

static void count_exponent(const float *x, int32_t *counts) {
    uint32_t bits = magnitude(x);
    uint32_t exponent = bits >> 23;
    if (exponent == 255 || bits == 0)
        return;
    if (exponent)
        counts[exponent + 22]++;
    else { /* subnormal: the position of its leading bit */
        int leading = -1;
        for (; bits; bits >>= 1)
            leading++;
        counts[leading]++;
    }
}

typedef void (*PairSum)(const float *, const float *, size_t, double *);

typedef struct {
    const float *x, *y;
    size_t n, stride;
    int counted;
    PairSum pair;
    Sums sums[THREADS];
    double pairs[THREADS][3];
    int32_t counts[THREADS][BINS];
} Work;

/* torch brings libgomp and makes its symbols global: the same idle threads serve here. Where there is
 * no such library (weak symbols stay null) one thread does all. */
#ifdef __linux__
extern void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned) __attribute__((weak));
extern int omp_get_max_threads(void) __attribute__((weak));
extern int omp_get_num_threads(void) __attribute__((weak));
extern int omp_get_thread_num(void) __attribute__((weak));

static void share_out(void (*part)(Work *, int, size_t, size_t), void (*parallel)(void *), Work *work) {
    int threads = 1;
    if (GOMP_parallel && omp_get_max_threads && omp_get_num_threads && omp_get_thread_num)
        threads = omp_get_max_threads();
    if ((size_t)threads > work->n / SHARE)
        threads = (int)(work->n / SHARE);
    if (threads > THREADS)
        threads = THREADS;
    if (threads > 1)
        GOMP_parallel(parallel, work, (unsigned)threads, 0);
    else
        part(work, 0, 0, work->n);
}

static void mine(const Work *work, int *number, size_t *start, size_t *end) {
    size_t chunks = (work->n + CHUNK - 1) / CHUNK;
    size_t threads = (size_t)omp_get_num_threads();
    *number = omp_get_thread_num();
    *start = chunks * (size_t)*number / threads * CHUNK;
    *end = chunks * (size_t)(*number + 1) / threads * CHUNK;
    *end = *end < work->n ? *end : work->n;
}

#define SHARED(part) \
    static void part##_shared(void *work) { \
        int number; \
        size_t start, end; \
        mine(work, &number, &start, &end); \
        part(work, number, start, end); \
    }
#define SHARE_OUT(part, work) share_out(part, part##_shared, work)
#else
#define SHARED(part)
#define SHARE_OUT(part, work) part(work, 0, 0, (work)->n)
#endif

static void sums_part(Work *work, int number, size_t start, size_t end) {
    size_t next = (start + work->stride - 1) / work->stride * work->stride;
    for (; start < end; start += CHUNK) {
        size_t stop = end - start < CHUNK ? end : start + CHUNK;
        add_chunk(work->x + start, stop - start, &work->sums[number]);
        if (work->counted)
            for (; next < stop; next += work->stride)
                count_exponent(work->x + next, work->counts[number]);
    }
}
SHARED(sums_part)

/* Reads n elements once; counts, unless NULL, gets every stride-th one's exponent. */
static Sums add_all(const float *x, size_t n, int32_t *counts, size_t stride) {
    Work work;
    work.x = x, work.n = n, work.stride = stride, work.counted = counts != NULL;
    memset(work.sums, 0, sizeof work.sums);
    if (counts)
        memset(work.counts, 0, n > SHARE ? sizeof work.counts : sizeof work.counts[0]);
    SHARE_OUT(sums_part, &work);
    Sums all = {0};
    for (int t = 0; t < THREADS; t++) {
        const Sums *part = &work.sums[t];
        all.total += part->total;
        all.square += part->square;
        all.zeros += part->zeros;
        all.bad += part->bad;
        all.largest = part->largest > all.largest ? part->largest : all.largest;
    }
    if (counts)
        for (int t = 0; t < (n > SHARE ? THREADS : 1); t++)
            for (int i = 0; i < BINS; i++)
                counts[i] += work.counts[t][i];
    return all;
}

static PyObject *host_sums(PyObject *self, PyObject *args) {
    unsigned long long address, n, stride;
    PyObject *target;
    Py_buffer buffer = {0};
    if (!PyArg_ParseTuple(args, "KKOK", &address, &n, &target, &stride))
        return NULL;
    if (target != Py_None) {
        if (PyObject_GetBuffer(target, &buffer, PyBUF_WRITABLE))
            return NULL;
        if (buffer.len != BINS * (Py_ssize_t)sizeof(int32_t) || stride == 0) {
            PyBuffer_Release(&buffer);
            PyErr_SetString(PyExc_ValueError, "counts must be 277 int32 and stride at least 1");
            return NULL;
        }
    }
    const float *x = (const float *)(uintptr_t)address;
    Sums sums = add_all(x, n, buffer.buf, stride);
    if (target != Py_None)
        PyBuffer_Release(&buffer);
    double finite = (double)(n - sums.bad);
    double centered = finite ? sums.square - sums.total * sums.total / finite : 0;
    if (centered < CANCELLED * sums.square)
        centered = centered_squares(x, n, sums.total / finite);
    float largest;
    memcpy(&largest, &sums.largest, sizeof largest);
    return Py_BuildValue("ddddddd", (double)n, (double)sums.bad, (double)sums.zeros, sums.total,
                         sums.square, centered, (double)largest);
}

static PyObject *host_square_sums(PyObject *self, PyObject *args) {
    PyObject *addresses, *counts;
    if (!PyArg_ParseTuple(args, "O!O!", &PyList_Type, &addresses, &PyList_Type, &counts))
        return NULL;
    Py_ssize_t size = PyList_Size(addresses);
    if (PyList_Size(counts) != size) {
        PyErr_SetString(PyExc_ValueError, "as many counts as addresses are needed");
        return NULL;
    }
    PyObject *out = PyList_New(size);
    if (!out)
        return NULL;
    for (Py_ssize_t i = 0; i < size; i++) {
        size_t address = PyLong_AsSize_t(PyList_GetItem(addresses, i));
        size_t n = PyLong_AsSize_t(PyList_GetItem(counts, i));
        if (PyErr_Occurred()) {
            Py_DECREF(out);
            return NULL;
        }
        Sums sums = add_all((const float *)(uintptr_t)address, n, NULL, 1);
        PyObject *value = PyFloat_FromDouble(sums.square);
        if (!value || PyList_SetItem(out, i, value)) {
            Py_DECREF(out);
            return NULL;
        }
    }
    return out;
}

FOR_EACH_MACHINE
static void add_products(const float *a, const float *b, size_t n, double *sums) {
    double aa[LANES] = {0}, bb[LANES] = {0}, ab[LANES] = {0};
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) {
            double x = a[i + j], y = b[i + j];
            aa[j] += x * x;
            bb[j] += y * y;
            ab[j] += x * y;
        }
    for (size_t i = whole; i < n; i++) {
        double x = a[i], y = b[i];
        aa[0] += x * x;
        bb[0] += y * y;
        ab[0] += x * y;
    }
    for (int j = 0; j < LANES; j++) {
        sums[0] += aa[j];
        sums[1] += bb[j];
        sums[2] += ab[j];
    }
}

FOR_EACH_MACHINE
static void add_differences(const float *a, const float *b, size_t n, double *sum) {
    double lanes[LANES] = {0};
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) {
            double away = (double)a[i + j] - b[i + j];
            lanes[j] += away * away;
        }
    for (size_t i = whole; i < n; i++) {
        double away = (double)a[i] - b[i];
        lanes[0] += away * away;
    }
    for (int j = 0; j < LANES; j++)
        *sum += lanes[j];
}

static void pairs_part(Work *work, int number, size_t start, size_t end) {
    for (; start < end; start += CHUNK) {
        size_t size = end - start < CHUNK ? end - start : CHUNK;
        work->pair(work->x + start, work->y + start, size, work->pairs[number]);
    }
}
SHARED(pairs_part)

/* Sums over pairs of elements, as `pair` makes them, three at most; 0 upon unusable arguments. */
static int add_pairs(PyObject *args, const char *names, PairSum pair, double *sums) {
    unsigned long long left, right, n;
    if (!PyArg_ParseTuple(args, names, &left, &right, &n))
        return 0;
    Work work;
    work.x = (const float *)(uintptr_t)left, work.y = (const float *)(uintptr_t)right, work.n = n;
    work.pair = pair;
    memset(work.pairs, 0, sizeof work.pairs);
    SHARE_OUT(pairs_part, &work);
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < 3; i++)
            sums[i] += work.pairs[t][i];
    return 1;
}

static PyObject *host_products(PyObject *self, PyObject *args) {
    double sums[3] = {0};
    if (!add_pairs(args, "KKK:products", add_products, sums))
        return NULL;
    return Py_BuildValue("ddd", sums[0], sums[1], sums[2]);
}

static PyObject *host_difference(PyObject *self, PyObject *args) {
    double sums[3] = {0};
    if (!add_pairs(args, "KKK:difference", add_differences, sums))
        return NULL;
    return PyFloat_FromDouble(sums[0]);
}

static PyObject *host_silent_channels(PyObject *self, PyObject *args) {
    unsigned long long address, outer, channels, inner;
    if (!PyArg_ParseTuple(args, "KKKK", &address, &outer, &channels, &inner))
        return NULL;
    const float *x = (const float *)(uintptr_t)address;
    unsigned long long silent = 0;
    for (size_t c = 0; c < channels; c++) {
        int quiet = 1;
        for (size_t o = 0; quiet && o < outer; o++) {
            const float *run = x + (o * channels + c) * inner;
            for (size_t i = 0; quiet && i < inner; i++)
                quiet = magnitude(run + i) == 0;
        }
        silent += quiet;
    }
    return PyLong_FromUnsignedLongLong(silent);
}

static PyMethodDef methods[] = {
    {"sums", host_sums, METH_VARARGS,
     "sums(address, n, counts, stride) -> the seven raw sums of n dense float32; counts (277 int32, "
     "or None) gets the exponents of every stride-th element added."},
    {"square_sums", host_square_sums, METH_VARARGS,
     "square_sums(addresses, counts) -> list of the sums of squares of the finite elements."},
    {"products", host_products, METH_VARARGS,
     "products(left, right, n) -> the sums of squares of both and of their products."},
    {"difference", host_difference, METH_VARARGS,
     "difference(left, right, n) -> the sum of squares of left - right."},
    {"silent_channels", host_silent_channels, METH_VARARGS,
     "silent_channels(address, outer, channels, inner) -> how many channels are zero throughout."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_host",
                                    "Float32 in host memory -> raw sums, in one read.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__host(void) { return PyModule_Create(&module); }
