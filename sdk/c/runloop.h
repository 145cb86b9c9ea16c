/* Runloop agents in C: the whole of the ABI, in one header, without a C library.
 *
 * Include it in one source file, write `rl_handle`, build with `rlp agent build`; runloop_agent.h writes `rl_handle`
 * for you. Memory comes from a bump allocator and is given back after every task: nothing is ever freed by hand, and
 * nothing survives a task. Knows: the canonical ABI of the world in sdk/runner/wit/agent.wit. Does not know: JSON (see
 * json.h), or what any host call means (see runloop_host.h).
 *
 * Compiled for another machine than wasm32 it is the same agent under test: see runloop_test.h.
 */
#ifndef RUNLOOP_H
#define RUNLOOP_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *data;
    size_t size;
} rl_text;

/* Result of an attempt or of a host call: UTF-8 JSON either way. */
typedef struct {
    int failed;
    rl_text text;
} rl_result;

/* The author's function: input JSON in, output JSON or {code, message, retryable} out. */
static rl_result rl_handle(rl_text input);

#define RL_TEXT(literal) ((rl_text){(literal), sizeof(literal) - 1})
#define RL_MAYBE __attribute__((unused)) /* a header's function that an agent need not use */

/* --- memory ---------------------------------------------------------------------------------- */

#ifdef __wasm__

extern unsigned char __heap_base;
static size_t rl_top;

/* Memory of the current task, aligned to 8, or a trap when there is none left. Not cleared. */
static void *rl_alloc(size_t size) {
    if (rl_top == 0) rl_top = ((size_t)&__heap_base + 7) & ~(size_t)7;
    size_t at = rl_top, end;
    if (__builtin_add_overflow(at, size, &end) || end > (size_t)-16) __builtin_trap();
    end = (end + 7) & ~(size_t)7;
    size_t have = __builtin_wasm_memory_size(0) * (size_t)65536;
    if (end > have) {
        size_t pages = (end - have + 65535) / 65536;
        if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) __builtin_trap();
    }
    rl_top = end;
    return (void *)at;
}

/* The compiler writes calls to these. */
void *memcpy(void *to, const void *from, size_t size) {
    unsigned char *t = to;
    const unsigned char *f = from;
    while (size--) *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, size_t size) {
    unsigned char *t = to;
    const unsigned char *f = from;
    if ((size_t)t <= (size_t)f) return memcpy(to, from, size);
    while (size--) t[size] = f[size];
    return to;
}

void *memset(void *to, int value, size_t size) {
    unsigned char *t = to;
    while (size--) *t++ = (unsigned char)value;
    return to;
}

int memcmp(const void *left, const void *right, size_t size) {
    const unsigned char *l = left, *r = right;
    for (; size--; l++, r++)
        if (*l != *r) return *l - *r;
    return 0;
}

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align,
                                                                size_t size) {
    (void)align; /* never above 8 in this world */
    void *made = rl_alloc(size);
    if (old_size) memcpy(made, old, old_size < size ? old_size : size);
    return made;
}

#else /* a test on the author's machine */

#include <string.h>

enum { RL_ARENA = 64 << 20 };
static _Alignas(16) unsigned char rl_arena[RL_ARENA];
static size_t rl_top;

static void *rl_alloc(size_t size) {
    size_t at = rl_top;
    if (size > RL_ARENA - at - 8) __builtin_trap();
    rl_top = (at + size + 7) & ~(size_t)7;
    return rl_arena + at;
}

#endif

/* --- the import ------------------------------------------------------------------------------ */

#ifdef __wasm__

__attribute__((import_module("runloop:agent/host@0.1.0"), import_name("call"))) extern void
rl_import_call(const char *op, size_t op_size, const char *args, size_t args_size, void *result);

/* Ask the host: JSON arguments in, JSON answer or refusal out. */
RL_MAYBE static rl_result rl_call(rl_text op, rl_text args) {
    struct {
        uint8_t failed;
        const char *data;
        size_t size;
    } raw;
    rl_import_call(op.data, op.size, args.data, args.size, &raw);
    return (rl_result){raw.failed, {raw.data, raw.size}};
}

#else

static rl_result rl_call(rl_text op, rl_text args); /* runloop_test.h */

#endif

/* --- the export ------------------------------------------------------------------------------ */

#ifdef __wasm__

static struct {
    uint8_t failed;
    const char *data;
    size_t size;
} rl_returned;

__attribute__((export_name("handle"))) void *rl_export_handle(const char *data, size_t size) {
    rl_result result = rl_handle((rl_text){data, size});
    rl_returned.failed = result.failed != 0;
    rl_returned.data = result.text.data;
    rl_returned.size = result.text.size;
    return &rl_returned;
}

__attribute__((export_name("cabi_post_handle"))) void rl_post_handle(void *result) {
    (void)result;
    rl_top = 0; /* the task is over, and so is its memory */
}

#endif

/* --- texts ----------------------------------------------------------------------------------- */

RL_MAYBE static int rl_equal(rl_text left, rl_text right) {
    return left.size == right.size && !memcmp(left.data, right.data, left.size);
}

/* Characters, not bytes. */
RL_MAYBE static size_t rl_length(rl_text text) {
    size_t count = 0;
    for (size_t i = 0; i < text.size; i++) count += ((unsigned char)text.data[i] & 0xC0) != 0x80;
    return count;
}

/* --- writing --------------------------------------------------------------------------------- */

/* A text that grows. Start with {0}. */
typedef struct {
    char *data;
    size_t size, room;
} rl_buffer;

RL_MAYBE static void rl_put(rl_buffer *to, rl_text text) {
    if (text.size > to->room - to->size) {
        size_t room;
        if (__builtin_add_overflow(to->size, text.size, &room) || room > (size_t)-1 / 2 - 64) __builtin_trap();
        room = room * 2 + 64;
        char *data = rl_alloc(room);
        if (to->size) memcpy(data, to->data, to->size);
        to->data = data, to->room = room;
    }
    if (text.size) memcpy(to->data + to->size, text.data, text.size);
    to->size += text.size;
}

#define RL_PUT(buffer, literal) rl_put((buffer), RL_TEXT(literal))

RL_MAYBE static rl_text rl_made(const rl_buffer *from) { return (rl_text){from->data, from->size}; }

#endif
