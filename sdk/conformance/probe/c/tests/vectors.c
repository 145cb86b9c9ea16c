/* Runs abi.json in process: cc -I sdk/c -o vectors tests/vectors.c && ./vectors abi.json */
#include "../probe.c"

#include <stdio.h>
#include <stdlib.h>

static const js_value *defaults, *expected;
static char fault[512];

static int same(const js_value *left, const js_value *right);

static int same_members(const js_value *left, const js_value *right) {
    for (const js_value *item = left->first; item; item = item->next)
        if (!same(js_get(left, item->key), js_get(right, item->key))) return 0;
    return 1;
}

static int same(const js_value *left, const js_value *right) {
    if (!left || !right || left->kind != right->kind) return 0;
    if (left->kind == JS_STRING) return rl_equal(left->text, right->text);
    if (left->kind == JS_NUMBER) {
        int64_t a, b;
        if (rl_equal(left->text, right->text)) return 1;
        if (js_int(left, &a) && js_int(right, &b)) return a == b;
        return strtod(left->text.data, NULL) == strtod(right->text.data, NULL); /* both stand inside longer texts */
    }
    if (left->kind == JS_OBJECT) return same_members(left, right) && same_members(right, left);
    const js_value *a = left->first, *b = right->first;
    for (; a && b; a = a->next, b = b->next)
        if (!same(a, b)) return 0;
    return !a && !b;
}

/* Every argument of `left` that says something is in `right` or is what would hold anyway. */
static int same_args(const js_value *left, const js_value *right, const js_value *usual) {
    for (const js_value *item = left->first; item; item = item->next) {
        if (item->kind == JS_NULL || same(item, js_get(usual, item->key))) continue;
        if (!same(item, js_get(right, item->key))) return 0;
    }
    return 1;
}

static int includes(const js_value *whole, const js_value *part) {
    if (!whole || whole->kind != part->kind) return 0;
    const js_value *item = part->first, *found = whole->first;
    if (part->kind == JS_OBJECT) {
        for (; item; item = item->next)
            if (!includes(js_get(whole, item->key), item)) return 0;
        return 1;
    }
    if (part->kind != JS_LIST) return same(whole, part);
    for (; item && found; item = item->next, found = found->next)
        if (!includes(found, item)) return 0;
    return !item && !found;
}

static rl_result rl_call(rl_text op, rl_text args) {
    const js_value *given = js_parse(args), *exchange = expected;
    if (!exchange) {
        snprintf(fault, sizeof fault, "one host call too many: %.*s", (int)op.size, op.data);
        return (rl_result){1, RL_TEXT("{}")};
    }
    expected = expected->next;
    const js_value *wanted = js_get(exchange, RL_TEXT("args")), *usual = js_get(defaults, op);
    if (!rl_equal(op, js_text(js_get(exchange, RL_TEXT("op")))) || !js_is(given, JS_OBJECT) ||
        !same_args(given, wanted, usual) || !same_args(wanted, given, usual))
        snprintf(fault, sizeof fault, "another host call: %.*s %.*s", (int)op.size, op.data, (int)args.size, args.data);
    const js_value *found;
    if ((found = js_get(exchange, RL_TEXT("answer_text")))) return (rl_result){0, found->text};
    if ((found = js_get(exchange, RL_TEXT("refusal_text")))) return (rl_result){1, found->text};
    if ((found = js_get(exchange, RL_TEXT("refusal")))) return (rl_result){1, json(found)};
    return (rl_result){0, json(js_get(exchange, RL_TEXT("answer")))};
}

static int fits_error(const js_value *error, const js_value *made) {
    const js_value *codes = js_get(error, RL_TEXT("codes")), *code = js_get(made, RL_TEXT("code"));
    const js_value *message = js_get(error, RL_TEXT("message")), *retryable = js_get(error, RL_TEXT("retryable"));
    int known = !codes->first;
    for (const js_value *item = codes->first; item; item = item->next) known |= same(item, code);
    return known && js_is(code, JS_STRING) && js_is(js_get(made, RL_TEXT("message")), JS_STRING) &&
           js_bool(js_get(made, RL_TEXT("retryable")), -1) >= 0 &&
           (!message || same(message, js_get(made, RL_TEXT("message")))) &&
           (!retryable || same(retryable, js_get(made, RL_TEXT("retryable"))));
}

int main(int count, char **words) {
    static char text[8 << 20];
    FILE *file = count == 2 ? fopen(words[1], "rb") : NULL;
    size_t size = file ? fread(text, 1, sizeof text - 1, file) : 0;
    const js_value *vectors = js_parse((rl_text){text, size}), *cases = js_get(vectors, RL_TEXT("cases"));
    int wrong = 0, played = 0;
    defaults = js_get(vectors, RL_TEXT("defaults"));
    for (const js_value *one = cases ? cases->first : NULL; one; one = one->next, played++) {
        const js_value *host = js_get(one, RL_TEXT("host")), *error = js_get(one, RL_TEXT("error"));
        const js_value *output = js_get(one, RL_TEXT("output")), *part = js_get(one, RL_TEXT("includes"));
        rl_text name = js_text(js_get(one, RL_TEXT("name")));
        size_t before = rl_top;
        fault[0] = 0;
        expected = host ? host->first : NULL;
        rl_result result = rl_handle(js_text(js_get(one, RL_TEXT("input"))));
        const js_value *made = js_parse(result.text);
        int fits = error ? result.failed && fits_error(error, made)
                         : !result.failed && (output ? same(output, made) : includes(made, part));
        if (!fits || fault[0] || expected)
            fprintf(stderr, "%.*s: %s; got %.*s\n", (int)name.size, name.data, fault,
                    (int)(result.text.size < 300 ? result.text.size : 300), result.text.data),
                wrong++;
        rl_top = before;
    }
    printf("%d vectors, %d wrong\n", played, wrong);
    return wrong || played < 100;
}
