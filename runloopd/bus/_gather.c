/* The compiled twin of gather.py: cut one read of a session into runs of plain frames.
 *
 * A frame is plain when its header is legal, its body's front and meta are byte for byte what Python judged
 * before (the ``known`` table), its payload is one well-formed value, its time is not over and its id was
 * never seen. At the first frame that is not, the work stops and Python judges that one: nothing is refused
 * here, and no rule of the bus lives here. What this file accepts, gather.py accepts (tests hold them together).
 *
 * Bytes of strangers are only ever read between a frame's start and its end, which is checked to lie inside
 * the buffer before anything else of the frame is looked at. No Python code runs while a pointer into the
 * tables of ids is held; the buffer and the route of the open run are kept alive by references.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PREFIX = 4, HEADER = 64, WHOLE = PREFIX + HEADER, TAG = 8, KEY = 24, ID = TAG + KEY };
enum { INTERFACE = 1 }; /* gather.py asks for it: what was built for another one is not used */
enum { DEPTH = 32, VALUES = 65536, KNOWN = 512, MAX_CAPACITY = 65536 };
#define INDEX_BITS 17 /* of a slot: number of the entry plus one; the rest is the upper end of the hash */
#define INDEX_MASK ((1u << INDEX_BITS) - 1)
#define STAMP_SHIFT 20 /* dedupe.py */

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t be64(const uint8_t *p) { return (uint64_t)be32(p) << 32 | be32(p + 4); }

/* --- ids seen lately: dedupe.py, as two open tables --------------------------------------------------- */

typedef struct {
    uint8_t id[ID];
    uint64_t stamp;
} Entry;

typedef struct {
    uint32_t *slots; /* 0: free */
    Entry *entries;
    uint32_t used;
} Generation;

typedef struct {
    PyObject_HEAD
    Generation young, old;
    uint32_t capacity, slots;
    uint64_t stamp;
    int64_t turned_ms, max_age_ms;
    uint64_t seed[2];
} Seen;

#define ROTL(x, b) ((x) << (b) | (x) >> (64 - (b)))
#define SIPROUND                                                            \
    do {                                                                    \
        v0 += v1, v1 = ROTL(v1, 13), v1 ^= v0, v0 = ROTL(v0, 32);           \
        v2 += v3, v3 = ROTL(v3, 16), v3 ^= v2;                              \
        v0 += v3, v3 = ROTL(v3, 21), v3 ^= v0;                              \
        v2 += v1, v1 = ROTL(v1, 17), v1 ^= v2, v2 = ROTL(v2, 32);           \
    } while (0)

/* SipHash-1-3, as Python's own for bytes: peers choose the ids, so the table must not be predictable. */
static uint64_t siphash(const uint64_t seed[2], const uint8_t id[ID])
{
    uint64_t v0 = seed[0] ^ 0x736f6d6570736575u, v1 = seed[1] ^ 0x646f72616e646f6du;
    uint64_t v2 = seed[0] ^ 0x6c7967656e657261u, v3 = seed[1] ^ 0x7465646279746573u, word;
    for (int at = 0; at < ID; at += 8) {
        memcpy(&word, id + at, 8);
        v3 ^= word;
        SIPROUND;
        v0 ^= word;
    }
    word = (uint64_t)ID << 56;
    v3 ^= word;
    SIPROUND;
    v0 ^= word;
    v2 ^= 0xff;
    SIPROUND;
    SIPROUND;
    SIPROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

static const Entry *find(const Seen *self, const Generation *in, const uint8_t id[ID], uint64_t hash)
{
    const uint32_t mark = (uint32_t)(hash >> 32) & ~INDEX_MASK, last = self->slots - 1;
    for (uint32_t at = (uint32_t)hash & last;; at = (at + 1) & last) {
        const uint32_t slot = in->slots[at]; /* at most half of them are taken: a free one comes */
        if (!slot)
            return NULL;
        if ((slot & ~INDEX_MASK) == mark) {
            const Entry *entry = &in->entries[(slot & INDEX_MASK) - 1];
            if (!memcmp(entry->id, id, ID))
                return entry;
        }
    }
}

/* 0 when the id is new and now remembered, else the stamp it was first seen with. */
static uint64_t first(Seen *self, const uint8_t id[ID], int64_t now_ms)
{
    const uint64_t hash = siphash(self->seed, id);
    const Entry *seen = find(self, &self->young, id, hash);
    if (!seen)
        seen = find(self, &self->old, id, hash);
    if (seen && now_ms - (int64_t)(seen->stamp >> STAMP_SHIFT) <= self->max_age_ms)
        return seen->stamp;
    if (self->young.used >= self->capacity || now_ms - self->turned_ms > self->max_age_ms) {
        const Generation turned = self->young;
        self->young = self->old;
        self->old = turned;
        memset(self->young.slots, 0, self->slots * sizeof *self->young.slots);
        self->young.used = 0;
        self->turned_ms = now_ms;
    }
    const uint64_t stamp = (uint64_t)now_ms << STAMP_SHIFT;
    self->stamp = stamp > self->stamp ? stamp : self->stamp + 1;
    Entry *entry = &self->young.entries[self->young.used++];
    memcpy(entry->id, id, ID);
    entry->stamp = self->stamp;
    const uint32_t last = self->slots - 1;
    uint32_t at = (uint32_t)hash & last;
    while (self->young.slots[at])
        at = (at + 1) & last;
    self->young.slots[at] = ((uint32_t)(hash >> 32) & ~INDEX_MASK) | self->young.used;
    return 0;
}

/* --- bodies ------------------------------------------------------------------------------------------- */

static int is_text(const uint8_t *p, size_t size)
{
    size_t at = 0;
    uint64_t high = 0, word;
    for (; size - at >= 8; at += 8) {
        memcpy(&word, p + at, 8);
        high |= word & 0x8080808080808080u;
    }
    for (; at < size; at++)
        high |= p[at] & 0x80;
    if (!high)
        return 1;
    PyObject *text = PyUnicode_DecodeUTF8((const char *)p, (Py_ssize_t)size, NULL);
    if (!text) {
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(text);
    return 1;
}

static uint64_t big_endian(const uint8_t *p, int width)
{
    uint64_t value = 0;
    while (width--)
        value = value << 8 | *p++;
    return value;
}

/* Where the MessagePack value at ``p`` ends; NULL when it is cut off, or not surely legal. */
static const uint8_t *after_value(const uint8_t *p, const uint8_t *stop)
{
    uint64_t lacking[DEPTH] = {1};
    uint8_t is_map[DEPTH] = {0};
    int depth = 0;
    for (int values = 0; values < VALUES; values++) {
        while (!lacking[depth])
            if (!depth--)
                return p;
        const int is_key = is_map[depth] && !(lacking[depth] & 1);
        lacking[depth]--;
        if (p >= stop)
            return NULL;
        const uint8_t head = *p++;
        const uint64_t left = (uint64_t)(stop - p);
        int width = 0, text = 0;
        uint64_t size = 0;
        if (head < 0x80 || head >= 0xE0 || head == 0xC0 || head == 0xC2 || head == 0xC3)
            continue;
        if (head < 0xA0 || head >= 0xDC) { /* a container */
            const int map = head < 0x90 || head >= 0xDE;
            width = head < 0xA0 ? 0 : head & 1 ? 4 : 2;
            if (is_key || depth + 1 >= DEPTH || left < (uint64_t)width)
                return NULL;
            size = head < 0xA0 ? head & 0x0Fu : big_endian(p, width);
            p += width;
            lacking[++depth] = map ? 2 * size : size;
            is_map[depth] = (uint8_t)map;
            if (lacking[depth] > left) /* every item has a byte at least */
                return NULL;
            continue;
        }
        if (head < 0xC0)
            size = head & 0x1Fu, text = 1;
        else if (head >= 0xD9 && head <= 0xDB)
            width = 1 << (head - 0xD9), text = 1;
        else if (head >= 0xC4 && head <= 0xC6)
            width = 1 << (head - 0xC4);
        else if (head == 0xCA || head == 0xCB)
            size = 4u << (head - 0xCA);
        else if (head >= 0xCC && head <= 0xD3)
            size = 1u << (head & 3);
        else
            return NULL; /* 0xC1 and the extension types */
        if (width) {
            if (left < (uint64_t)width)
                return NULL;
            size = big_endian(p, width);
            p += width;
        }
        if (size > (uint64_t)(stop - p) || (text && !is_text(p, (size_t)size)))
            return NULL;
        p += size;
    }
    return NULL;
}

/* Where the payload begins: behind a map of three, "type", a text and "payload". NULL when it does not. */
static const uint8_t *after_front(const uint8_t *p, const uint8_t *stop)
{
    if (stop - p < 7 || memcmp(p, "\x83\xA4type", 6))
        return NULL;
    p += 6;
    size_t size;
    if (*p >= 0xA0 && *p < 0xC0)
        size = *p++ & 0x1Fu;
    else if (*p == 0xD9 && stop - p >= 2)
        size = p[1], p += 2;
    else
        return NULL;
    if ((size_t)(stop - p) < size + 8 || memcmp(p + size, "\xA7payload", 8))
        return NULL;
    return p + size + 8;
}

/* --- one read ----------------------------------------------------------------------------------------- */

typedef struct {
    PyObject *route; /* a reference of our own; NULL before the first frame */
    const uint8_t *frame, *payload, *meta; /* the frame that showed us this route */
    Py_ssize_t front_size, meta_size;
} Shown;

/* The route of a frame: the one just used, or what Python wrote down; NULL without an error when unknown. */
static int look_up(Shown *shown, const uint8_t *frame, const uint8_t *payload, const uint8_t *meta,
                   const uint8_t *stop, PyObject *known)
{
    const Py_ssize_t front = payload - (frame + WHOLE), rest = stop - meta;
    if (shown->route && front == shown->front_size && rest == shown->meta_size &&
        !memcmp(frame + 16, shown->frame + 16, 2) && !memcmp(frame + WHOLE, shown->frame + WHOLE, (size_t)front) &&
        !memcmp(meta, shown->meta, (size_t)rest))
        return 1;
    if (2 + front + rest > KNOWN)
        return 0;
    char text[KNOWN];
    memcpy(text, frame + 16, 2);
    memcpy(text + 2, frame + WHOLE, (size_t)front);
    memcpy(text + 2 + front, meta, (size_t)rest);
    PyObject *key = PyBytes_FromStringAndSize(text, 2 + front + rest);
    if (!key)
        return -1;
    PyObject *route = PyDict_GetItemWithError(known, key);
    Py_XINCREF(route);
    Py_DECREF(key);
    if (!route)
        return PyErr_Occurred() ? -1 : 0;
    Py_XDECREF(shown->route);
    *shown = (Shown){route, frame, payload, meta, front, rest};
    return 1;
}

/* A frame that is whole, legal and alive: sets where it ends, when it expires. */
static int is_plain(const uint8_t *frame, Py_ssize_t left, uint32_t max_frame, uint64_t now_ms,
                    const uint8_t **stop, uint64_t *expires_ms)
{
    if (left < WHOLE)
        return 0;
    const uint32_t size = be32(frame);
    if (size < HEADER || size > max_frame || (Py_ssize_t)size > left - PREFIX)
        return 0;
    if (memcmp(frame + 4, "RMP0\0\0\0\x40\0\0\0", 12) || memcmp(frame + 18, "\0", 2) ||
        be32(frame + 20) != size - HEADER || be32(frame + 64))
        return 0;
    const uint64_t created = be64(frame + 24), ttl = be64(frame + 32);
    *expires_ms = created + ttl;
    *stop = frame + PREFIX + size;
    return ttl && *expires_ms >= created && now_ms < *expires_ms;
}

static int close_run(PyObject *runs, PyObject *route, Py_ssize_t start, Py_ssize_t end, Py_ssize_t count,
                     uint64_t earliest)
{
    if (!count)
        return 0;
    PyObject *run = Py_BuildValue("OnnnK", route, start, end, count, (unsigned long long)earliest);
    const int failed = !run || PyList_Append(runs, run);
    Py_XDECREF(run);
    return failed;
}

static int read_now(PyObject *value, int64_t *now_ms)
{
    const long long now = PyLong_AsLongLong(value);
    if (now == -1 && PyErr_Occurred())
        return -1;
    if (now < 0 || now >= 1LL << (63 - STAMP_SHIFT)) {
        PyErr_SetString(PyExc_OverflowError, "the clock is out of range");
        return -1;
    }
    *now_ms = now;
    return 0;
}

PyDoc_STRVAR(gather_doc, "gather(buffer, at, max_frame, now_ms, tag, known) -> (at, runs); see gather.py");

static PyObject *gather(Seen *self, PyObject *const *args, Py_ssize_t nargs)
{
    char *data, *tag;
    Py_ssize_t size, tag_size;
    int64_t now_ms;
    if (nargs != 6 || !PyDict_Check(args[5])) {
        PyErr_SetString(PyExc_TypeError, "gather(buffer, at, max_frame, now_ms, tag, known)");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &data, &size) || PyBytes_AsStringAndSize(args[4], &tag, &tag_size) ||
        read_now(args[3], &now_ms))
        return NULL;
    Py_ssize_t at = PyLong_AsSsize_t(args[1]);
    const Py_ssize_t max_frame = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred())
        return NULL;
    if (at < 0 || at > size || max_frame < 0 || max_frame > 1 << 30 || tag_size != TAG) {
        PyErr_SetString(PyExc_ValueError, "gather: at, max_frame or tag is out of range");
        return NULL;
    }
    PyObject *runs = PyList_New(0), *known = args[5], *current = NULL;
    if (!runs)
        return NULL;
    Shown shown = {0};
    Py_ssize_t start = at, count = 0;
    uint64_t earliest = 0, expires;
    const uint8_t *stop;
    uint8_t id[ID];
    memcpy(id, tag, TAG);
    for (;;) {
        const uint8_t *frame = (const uint8_t *)data + at;
        if (!is_plain(frame, size - at, (uint32_t)max_frame, (uint64_t)now_ms, &stop, &expires))
            break;
        const uint8_t *payload = after_front(frame + WHOLE, stop);
        const uint8_t *meta = payload ? after_value(payload, stop) : NULL;
        if (!meta)
            break;
        const int found = look_up(&shown, frame, payload, meta, stop, known);
        if (found < 0)
            goto failed;
        if (!found)
            break;
        memcpy(id + TAG, frame + 40, KEY);
        if (first(self, id, now_ms))
            break;
        if (shown.route != current) {
            if (current && close_run(runs, current, start, at, count, earliest))
                goto failed;
            Py_XDECREF(current);
            current = shown.route;
            Py_INCREF(current);
            start = at, count = 0, earliest = expires;
        }
        count++;
        if (expires < earliest)
            earliest = expires;
        at = (Py_ssize_t)(stop - (const uint8_t *)data);
    }
    if (current && close_run(runs, current, start, at, count, earliest))
        goto failed;
    Py_XDECREF(current);
    Py_XDECREF(shown.route);
    return Py_BuildValue("nN", at, runs);
failed:
    Py_XDECREF(current);
    Py_XDECREF(shown.route);
    Py_DECREF(runs);
    return NULL;
}

/* --- the type ----------------------------------------------------------------------------------------- */

static PyObject *seen_first(Seen *self, PyObject *const *args, Py_ssize_t nargs)
{
    char *tag, *key;
    Py_ssize_t tag_size, key_size;
    int64_t now_ms;
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "first(tag, key, now_ms)");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &tag, &tag_size) || PyBytes_AsStringAndSize(args[1], &key, &key_size) ||
        read_now(args[2], &now_ms))
        return NULL;
    if (tag_size != TAG || key_size != KEY) {
        PyErr_SetString(PyExc_ValueError, "first: a tag has 8 bytes and a key 24");
        return NULL;
    }
    uint8_t id[ID];
    memcpy(id, tag, TAG);
    memcpy(id + TAG, key, KEY);
    const uint64_t stamp = first(self, id, now_ms);
    if (!stamp)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(stamp);
}

static PyObject *seen_stamp(Seen *self, PyObject *now)
{
    int64_t now_ms;
    if (read_now(now, &now_ms))
        return NULL;
    const uint64_t stamp = (uint64_t)now_ms << STAMP_SHIFT;
    self->stamp = stamp > self->stamp ? stamp : self->stamp + 1;
    return PyLong_FromUnsignedLongLong(self->stamp);
}

static Py_ssize_t seen_len(Seen *self) { return (Py_ssize_t)self->young.used + self->old.used; }

static void seen_free(Seen *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    free(self->young.slots);
    free(self->young.entries);
    free(self->old.slots);
    free(self->old.entries);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *seen_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"capacity", "max_age_ms", "seed", NULL};
    int capacity;
    long long max_age_ms;
    const char *seed;
    Py_ssize_t seed_size;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iLy#", names, &capacity, &max_age_ms, &seed, &seed_size))
        return NULL;
    if (capacity < 1 || capacity > MAX_CAPACITY || max_age_ms < 0 || max_age_ms > 1LL << 40 || seed_size != 16) {
        PyErr_SetString(PyExc_ValueError, "Seen: capacity 1..65536, max_age_ms >= 0, a seed of 16 bytes");
        return NULL;
    }
    Seen *self = (Seen *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self)
        return NULL;
    self->capacity = (uint32_t)capacity;
    self->max_age_ms = max_age_ms;
    memcpy(self->seed, seed, 16);
    for (self->slots = 2; self->slots < 2 * self->capacity;)
        self->slots *= 2;
    Generation *both[] = {&self->young, &self->old};
    for (int n = 0; n < 2; n++) {
        both[n]->slots = calloc(self->slots, sizeof *both[n]->slots);
        both[n]->entries = malloc(self->capacity * sizeof *both[n]->entries);
        if (!both[n]->slots || !both[n]->entries) {
            Py_DECREF(self);
            return PyErr_NoMemory();
        }
    }
    return (PyObject *)self;
}

static PyMethodDef seen_methods[] = {
    {"gather", (PyCFunction)(void (*)(void))gather, METH_FASTCALL, gather_doc},
    {"first", (PyCFunction)(void (*)(void))seen_first, METH_FASTCALL, "first(tag, key, now_ms); see dedupe.py"},
    {"stamp", (PyCFunction)seen_stamp, METH_O, "stamp(now_ms); see dedupe.py"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot seen_slots[] = {
    {Py_tp_new, seen_new},
    {Py_tp_dealloc, seen_free},
    {Py_tp_methods, seen_methods},
    {Py_sq_length, seen_len},
    {Py_tp_doc, "Ids seen lately, and the reader of plain frames that asks them."},
    {0, NULL},
};

static PyType_Spec seen_spec = {"runloopd.bus._gather.Seen", sizeof(Seen), 0, Py_TPFLAGS_DEFAULT, seen_slots};

static int fill(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&seen_spec);
    const int failed =
        !type || PyModule_AddObjectRef(module, "Seen", type) || PyModule_AddIntConstant(module, "INTERFACE", INTERFACE);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_gather", "One read of a session, cut into runs of plain frames.", 0, NULL, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__gather(void) { return PyModuleDef_Init(&definition); }
