/* Runloop agents in C: the whole of the ABI, in one header, without a C library.
 *
 * Include it in one source file, write `handle`, build with sdk/c/build.py. Memory comes from a bump allocator and is
 * given back after every task. Knows: the canonical ABI of the world in sdk/runner/wit/agent.wit. Does not know: JSON
 * (see json.h), or what any host call means.
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

/* --- memory ---------------------------------------------------------------------------------- */

extern unsigned char __heap_base;
static size_t rl_top;

/* Memory of the current task, aligned to 8, or a trap when there is none left. */
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

/* --- the import ------------------------------------------------------------------------------ */

__attribute__((import_module("runloop:agent/host@0.1.0"), import_name("call"))) extern void
rl_import_call(const char *op, size_t op_size, const char *args, size_t args_size, void *result);

/* Ask the host: JSON arguments in, JSON answer or refusal out. */
__attribute__((unused)) static rl_result rl_call(rl_text op, rl_text args) {
    struct {
        uint8_t failed;
        const char *data;
        size_t size;
    } raw;
    rl_import_call(op.data, op.size, args.data, args.size, &raw);
    return (rl_result){raw.failed, {raw.data, raw.size}};
}

/* --- the export ------------------------------------------------------------------------------ */

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

/* --- writing --------------------------------------------------------------------------------- */

/* A text that grows. Start with {0}. */
typedef struct {
    char *data;
    size_t size, room;
} rl_buffer;

__attribute__((unused)) static void rl_put(rl_buffer *to, rl_text text) {
    if (to->size + text.size > to->room) {
        size_t room = (to->size + text.size) * 2 + 64;
        char *data = rl_alloc(room);
        memcpy(data, to->data, to->size);
        to->data = data, to->room = room;
    }
    memcpy(to->data + to->size, text.data, text.size);
    to->size += text.size;
}

#define RL_PUT(buffer, literal) rl_put((buffer), RL_TEXT(literal))

#endif
