/* Coverage-guided fuzzing of the compiled step of the bus (runloopd/bus/_gather.c), under ASan and UBSan.
 *
 *     python -m pip install --target .fuzz atheris      (brings libFuzzer's library)
 *     tests/fuzz/fuzz_gather.sh [seconds]
 *
 * One input is one read: its first two bytes choose the clock and how often the stream is read again with the
 * same ids. Besides what the sanitizers see, this asserts what gather() promises: runs lie one behind the
 * other inside of the buffer, every run has frames, and no more ids are remembered than frames were gathered.
 */
#include "../../runloopd/bus/_gather.c"

#include <stdio.h>

int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*one)(const uint8_t *, size_t));

static PyObject *type, *known, *tag;
static const char FRONT[] = "\0\1\x83\xA4type\xB6observation.generic.v1\xA7payload";
static const char *const METAS[] = {"\xA4meta\x81\xA5topic\xA1" "a", "\xA4meta\x81\xA5topic\xA1" "b"};

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz_gather: %s\n", what);
    PyErr_Print();
    abort();
}

static void put(uint8_t *p, uint64_t value, int width)
{
    while (width--)
        p[width] = (uint8_t)value, value >>= 8;
}

/* Make a header legal behind a mutated stream now and then, else hardly an input would get past it. */
static void mend(uint8_t *data, size_t size)
{
    for (size_t at = 0; size - at >= WHOLE;) {
        uint8_t *p = data + at;
        size_t body = p[3] % 128;
        if (body > size - at - WHOLE)
            body = size - at - WHOLE;
        const uint8_t mended = p[0] & 1, shape = p[1]; /* the fuzzer's choice */
        if (mended) {
            put(p, HEADER + body, 4);
            memcpy(p + 4, "RMP0\0\0\0\x40\0\0\0\0\0\1\0", 16);
            put(p + 20, body, 4);
            put(p + 24, 1000 + p[31] % 4, 8);
            put(p + 32, 1 + p[39] % 4, 8);
            put(p + 64, 0, 4);
            if (shape & 1 && body >= sizeof FRONT - 3) {
                memcpy(p + WHOLE, FRONT + 2, sizeof FRONT - 3);
                const char *meta = METAS[shape >> 1 & 1];
                const size_t room = body - (sizeof FRONT - 3);
                if (shape & 4 && room >= strlen(meta))
                    memcpy(p + WHOLE + body - strlen(meta), meta, strlen(meta));
            }
        }
        at += WHOLE + body;
    }
}

static int one(const uint8_t *input, size_t size)
{
    if (size < 2)
        return 0;
    PyObject *seen = PyObject_CallFunction(type, "iiy#", 1 + input[1] % 32, 2, "0123456789abcdef", (Py_ssize_t)16);
    require(seen != NULL, "no Seen");
    PyObject *buffer = PyBytes_FromStringAndSize((const char *)input + 2, (Py_ssize_t)size - 2);
    require(buffer != NULL, "no buffer");
    if (input[0] & 1)
        mend((uint8_t *)PyBytes_AsString(buffer), size - 2);
    for (int again = 0; again <= (input[0] >> 1 & 3); again++) {
        const Py_ssize_t before = PyObject_Size(seen);
        PyObject *found = PyObject_CallMethod(seen, "gather", "OiiiOO", buffer, 0, 4096, 1001, tag, known);
        require(found != NULL, "gather raised");
        const Py_ssize_t at = PyLong_AsSsize_t(PyTuple_GetItem(found, 0));
        PyObject *runs = PyTuple_GetItem(found, 1);
        Py_ssize_t last = 0, total = 0;
        for (Py_ssize_t n = 0; n < PyList_Size(runs); n++) {
            PyObject *run = PyList_GetItem(runs, n);
            const Py_ssize_t start = PyLong_AsSsize_t(PyTuple_GetItem(run, 1));
            const Py_ssize_t end = PyLong_AsSsize_t(PyTuple_GetItem(run, 2));
            const Py_ssize_t count = PyLong_AsSsize_t(PyTuple_GetItem(run, 3));
            require(start == last && end >= start + count * WHOLE && count > 0, "runs are not one behind the other");
            last = end, total += count;
        }
        require(last == at && at <= (Py_ssize_t)size - 2, "the end is not that of the last run");
        const Py_ssize_t after = PyObject_Size(seen);
        require(after <= before + total && (after == before + total || after <= 64), "ids were lost or invented");
        require(!again || !total || 1 + input[1] % 32 < 32, "a second look found something new");
        Py_DECREF(found);
    }
    Py_DECREF(buffer);
    Py_DECREF(seen);
    require(!PyErr_Occurred(), "an error was left behind");
    return 0;
}

int main(int argc, char **argv)
{
    PyImport_AppendInittab("_gather", PyInit__gather);
    Py_Initialize();
    PyObject *module = PyImport_ImportModule("_gather");
    require(module != NULL, "no module");
    type = PyObject_GetAttrString(module, "Seen");
    known = PyDict_New();
    tag = PyBytes_FromStringAndSize("12345678", 8);
    for (int n = 0; n < 2; n++) {
        char key[256];
        memcpy(key, FRONT, sizeof FRONT - 1);
        memcpy(key + sizeof FRONT - 1, METAS[n], strlen(METAS[n]));
        PyObject *bytes = PyBytes_FromStringAndSize(key, (Py_ssize_t)(sizeof FRONT - 1 + strlen(METAS[n])));
        require(bytes && !PyDict_SetItem(known, bytes, n ? Py_True : Py_False), "no route");
    }
    return LLVMFuzzerRunDriver(&argc, &argv, one);
}
