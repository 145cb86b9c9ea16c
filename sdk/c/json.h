/* Reads JSON (RFC 8259) into a tree, strictly, and writes it, for agents in C. Include after runloop.h.
 *
 * Strings are decoded to UTF-8 with their length, so they may hold NUL; an escaped lone surrogate becomes its three
 * generalised bytes, as Python keeps it. Numbers keep their digits, so integers of any size pass unchanged. Of equal
 * keys the last one counts.
 */
#ifndef RUNLOOP_JSON_H
#define RUNLOOP_JSON_H

#include "runloop.h"

typedef enum { JS_NULL, JS_FALSE, JS_TRUE, JS_NUMBER, JS_STRING, JS_LIST, JS_OBJECT } js_kind;

typedef struct js_value {
    js_kind kind;
    rl_text text; /* of a string, decoded; of a number, as written */
    rl_text key;  /* inside an object */
    struct js_value *first, *next;
} js_value;

typedef struct {
    const char *at, *end;
} js_reader;

enum { JS_DEPTH = 100 };

static js_value *js_parse_value(js_reader *in, int depth);

static void js_blank(js_reader *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r')) in->at++;
}

static int js_take(js_reader *in, char wanted) {
    if (in->at >= in->end || *in->at != wanted) return 0;
    in->at++;
    return 1;
}

static int js_word(js_reader *in, rl_text word) {
    if ((size_t)(in->end - in->at) < word.size || memcmp(in->at, word.data, word.size)) return 0;
    in->at += word.size;
    return 1;
}

static int js_hex4(js_reader *in, uint32_t *code) {
    if (in->end - in->at < 4) return 0;
    *code = 0;
    for (int i = 0; i < 4; i++, in->at++) {
        char c = *in->at;
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) return 0;
        *code = *code << 4 | digit;
    }
    return 1;
}

static char *js_utf8(char *to, uint32_t code) {
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xC0 | code >> 6);
        *to++ = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        *to++ = (char)(0xE0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 63));
        *to++ = (char)(0x80 | (code & 63));
    } else {
        *to++ = (char)(0xF0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 63));
        *to++ = (char)(0x80 | (code >> 6 & 63));
        *to++ = (char)(0x80 | (code & 63));
    }
    return to;
}

static int js_escape(js_reader *in, char **to) {
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    if (in->at >= in->end) return 0;
    char c = *in->at++;
    for (int i = 0; from[i]; i++)
        if (c == from[i]) {
            *(*to)++ = into[i];
            return 1;
        }
    uint32_t code, low;
    if (c != 'u' || !js_hex4(in, &code)) return 0;
    if (code >= 0xD800 && code < 0xDC00 && in->end - in->at >= 6 && in->at[0] == '\\' && in->at[1] == 'u') {
        js_reader ahead = {in->at + 2, in->end};
        if (js_hex4(&ahead, &low) && low >= 0xDC00 && low < 0xE000) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            in->at = ahead.at;
        }
    }
    *to = js_utf8(*to, code);
    return 1;
}

static int js_parse_string(js_reader *in, rl_text *text) {
    if (!js_take(in, '"')) return 0;
    const char *scan = in->at;
    while (scan < in->end && *scan != '"') scan += *scan == '\\' ? 2 : 1;
    if (scan >= in->end) return 0;
    char *made = rl_alloc((size_t)(scan - in->at) + 4), *to = made; /* decoding never makes it longer */
    for (;;) {
        if (in->at >= in->end) return 0;
        char c = *in->at++;
        if (c == '"') break;
        if ((unsigned char)c < 0x20) return 0;
        if (c != '\\')
            *to++ = c;
        else if (!js_escape(in, &to))
            return 0;
    }
    *text = (rl_text){made, (size_t)(to - made)};
    return 1;
}

static int js_digits(js_reader *in) {
    const char *start = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9') in->at++;
    return in->at > start;
}

static int js_parse_number(js_reader *in, rl_text *text) {
    const char *start = in->at;
    js_take(in, '-');
    if (!js_take(in, '0') && !js_digits(in)) return 0;
    if (js_take(in, '.') && !js_digits(in)) return 0;
    if (js_take(in, 'e') || js_take(in, 'E')) {
        if (!js_take(in, '+')) js_take(in, '-');
        if (!js_digits(in)) return 0;
    }
    *text = (rl_text){start, (size_t)(in->at - start)};
    return 1;
}

static int js_parse_inside(js_reader *in, js_value *owner, char closer, int depth) {
    js_value **last = &owner->first;
    js_blank(in);
    if (js_take(in, closer)) return 1;
    for (;;) {
        rl_text key = {0};
        js_blank(in);
        if (closer == '}') {
            if (!js_parse_string(in, &key)) return 0;
            js_blank(in);
            if (!js_take(in, ':')) return 0;
        }
        js_value *item = js_parse_value(in, depth + 1);
        if (!item) return 0;
        item->key = key;
        *last = item, last = &item->next;
        js_blank(in);
        if (js_take(in, closer)) return 1;
        if (!js_take(in, ',')) return 0;
    }
}

static js_value *js_parse_value(js_reader *in, int depth) {
    if (depth > JS_DEPTH) return NULL;
    js_value *made = rl_alloc(sizeof *made);
    *made = (js_value){0};
    js_blank(in);
    if (in->at >= in->end) return NULL;
    int fine = 1;
    switch (*in->at) {
    case '{':
        in->at++, made->kind = JS_OBJECT, fine = js_parse_inside(in, made, '}', depth);
        break;
    case '[':
        in->at++, made->kind = JS_LIST, fine = js_parse_inside(in, made, ']', depth);
        break;
    case '"':
        made->kind = JS_STRING, fine = js_parse_string(in, &made->text);
        break;
    case 't':
        made->kind = JS_TRUE, fine = js_word(in, RL_TEXT("true"));
        break;
    case 'f':
        made->kind = JS_FALSE, fine = js_word(in, RL_TEXT("false"));
        break;
    case 'n':
        made->kind = JS_NULL, fine = js_word(in, RL_TEXT("null"));
        break;
    default:
        made->kind = JS_NUMBER, fine = js_parse_number(in, &made->text);
    }
    return fine ? made : NULL;
}

/* The whole text as one value, or NULL when it is not JSON. */
RL_MAYBE static js_value *js_parse(rl_text text) {
    js_reader in = {text.data, text.data + text.size};
    js_value *made = js_parse_value(&in, 0);
    js_blank(&in);
    return in.at == in.end ? made : NULL;
}

/* A member of an object, or NULL. */
RL_MAYBE static js_value *js_get(const js_value *owner, rl_text key) {
    js_value *found = NULL;
    if (owner && owner->kind == JS_OBJECT)
        for (js_value *item = owner->first; item; item = item->next)
            if (item->key.size == key.size && !memcmp(item->key.data, key.data, key.size)) found = item;
    return found;
}

/* The last item of a list, or NULL. */
RL_MAYBE static js_value *js_last(const js_value *owner) {
    js_value *item = owner && owner->kind == JS_LIST ? owner->first : NULL;
    while (item && item->next) item = item->next;
    return item;
}

RL_MAYBE static int js_is(const js_value *value, js_kind kind) { return value && value->kind == kind; }

/* The text of a string; empty for anything else. */
RL_MAYBE static rl_text js_text(const js_value *value) { return js_is(value, JS_STRING) ? value->text : RL_TEXT(""); }

/* Whether it is a whole number that fits; `made` gets it. */
RL_MAYBE static int js_int(const js_value *value, int64_t *made) {
    if (!js_is(value, JS_NUMBER)) return 0;
    size_t i = value->text.data[0] == '-';
    uint64_t sum = 0, most = (uint64_t)INT64_MAX + i;
    int negative = (int)i;
    for (; i < value->text.size; i++) {
        char c = value->text.data[i];
        if (c < '0' || c > '9' || sum > (most - (uint64_t)(c - '0')) / 10) return 0;
        sum = sum * 10 + (uint64_t)(c - '0');
    }
    *made = negative ? (int64_t)(0 - sum) : (int64_t)sum;
    return 1;
}

/* The truth; `otherwise` for what is neither true nor false. */
RL_MAYBE static int js_bool(const js_value *value, int otherwise) {
    return js_is(value, JS_TRUE) ? 1 : js_is(value, JS_FALSE) ? 0 : otherwise;
}

RL_MAYBE static size_t js_count(const js_value *owner) {
    size_t count = 0;
    if (js_is(owner, JS_LIST) || js_is(owner, JS_OBJECT))
        for (const js_value *item = owner->first; item; item = item->next) count++;
    return count;
}

/* --- writing --------------------------------------------------------------------------------- */

/* A text as a JSON string, with its quotes. */
RL_MAYBE static void js_put_string(rl_buffer *to, rl_text text) {
    static const char hex[] = "0123456789abcdef";
    RL_PUT(to, "\"");
    size_t plain = 0;
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        char escape[6] = {'\\', (char)c, '0', '0', hex[c >> 4], hex[c & 15]};
        size_t size = 2;
        if (c == '\n')
            escape[1] = 'n';
        else if (c < 0x20)
            escape[1] = 'u', size = 6;
        rl_put(to, (rl_text){text.data + plain, i - plain});
        rl_put(to, (rl_text){escape, size});
        plain = i + 1;
    }
    rl_put(to, (rl_text){text.data + plain, text.size - plain});
    RL_PUT(to, "\"");
}

RL_MAYBE static void js_put_int(rl_buffer *to, int64_t value) {
    char digits[20], *at = digits + sizeof digits;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0) RL_PUT(to, "-");
    rl_put(to, (rl_text){at, (size_t)(digits + sizeof digits - at)});
}

/* Any value; NULL is null. */
RL_MAYBE static void js_put(rl_buffer *to, const js_value *value) {
    switch (value ? value->kind : JS_NULL) {
    case JS_NULL:
        RL_PUT(to, "null");
        break;
    case JS_FALSE:
        RL_PUT(to, "false");
        break;
    case JS_TRUE:
        RL_PUT(to, "true");
        break;
    case JS_NUMBER:
        rl_put(to, value->text);
        break;
    case JS_STRING:
        js_put_string(to, value->text);
        break;
    case JS_LIST:
    case JS_OBJECT: {
        int named = value->kind == JS_OBJECT, written = 0;
        rl_put(to, named ? RL_TEXT("{") : RL_TEXT("["));
        for (const js_value *item = value->first; item; item = item->next) {
            if (named && js_get(value, item->key) != item) continue; /* of equal keys the last one counts */
            if (written++) RL_PUT(to, ",");
            if (named) js_put_string(to, item->key), RL_PUT(to, ":");
            js_put(to, item);
        }
        rl_put(to, named ? RL_TEXT("}") : RL_TEXT("]"));
    }
    }
}

/* Whether a text is UTF-8: what leaves a guest must be, and half a surrogate pair is not. */
RL_MAYBE static int js_is_utf8(rl_text text) {
    const unsigned char *at = (const unsigned char *)text.data, *end = at + text.size;
    while (at < end) {
        unsigned char c = *at++;
        int more = c < 0x80 ? 0 : c >= 0xC2 && c < 0xE0 ? 1 : (c & 0xF0) == 0xE0 ? 2 : c >= 0xF0 && c < 0xF5 ? 3 : -1;
        if (more < 0 || end - at < more) return 0;
        if ((c == 0xE0 && *at < 0xA0) || (c == 0xED && *at > 0x9F) || (c == 0xF0 && *at < 0x90) ||
            (c == 0xF4 && *at > 0x8F))
            return 0;
        for (; more; more--)
            if ((*at++ & 0xC0) != 0x80) return 0;
    }
    return 1;
}

#endif
