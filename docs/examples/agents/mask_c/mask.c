/* Masks e-mail addresses and long runs of digits (cards, accounts, telephones) in a text. */
#include "runloop_agent.h"

enum { LEAST_DIGITS = 7, KEPT_DIGITS = 2 };

typedef struct {
    int64_t addresses, numbers;
} masked;

static int is_digit(char c) { return c >= '0' && c <= '9'; }

/* Of an address; every byte of a letter beyond ASCII counts as one. */
static int is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || (unsigned char)c >= 0x80 || c == '.' ||
           c == '_' || c == '+' || c == '-' || c == '%';
}

/* Where the word that begins at `from` ends. */
static size_t word_end(rl_text text, size_t from) {
    while (from < text.size && is_word(text.data[from])) from++;
    return from;
}

/* A run of digits may hold single blanks and dashes: 4111 1111-1111. */
static size_t number_end(rl_text text, size_t from, size_t *digits) {
    size_t end = from;
    *digits = 0;
    for (size_t i = from; i < text.size; i++) {
        if (is_digit(text.data[i]))
            ++*digits, end = i + 1;
        else if ((text.data[i] != ' ' && text.data[i] != '-') || i != end)
            break;
    }
    return end;
}

static void mask_number(rl_text text, size_t from, size_t end, size_t digits, rl_buffer *out) {
    for (size_t i = from, seen = 0; i < end; i++) {
        int hidden = is_digit(text.data[i]) && seen++ + KEPT_DIGITS < digits;
        rl_put(out, hidden ? RL_TEXT("*") : (rl_text){text.data + i, 1});
    }
}

static masked mask(rl_text text, rl_buffer *out) {
    masked count = {0, 0};
    size_t i = 0;
    while (i < text.size) {
        size_t word = word_end(text, i), digits, number = number_end(text, i, &digits);
        size_t host = word < text.size && word > i && text.data[word] == '@' ? word_end(text, word + 1) : 0;
        if (host > word + 1) {
            RL_PUT(out, "[address]");
            if (text.data[host - 1] == '.') RL_PUT(out, "."); /* the sentence's own */
            count.addresses++, i = host;
        } else if (digits >= LEAST_DIGITS) {
            mask_number(text, i, number, digits, out);
            count.numbers++, i = number;
        } else {
            size_t next = word > i ? word : i + 1;
            for (size_t j = i + 1; j < next; j++) /* a number may begin inside a word: "No.4111…" */
                if (is_digit(text.data[j]) && !is_digit(text.data[j - 1])) next = j;
            rl_put(out, (rl_text){text.data + i, next - i});
            i = next;
        }
    }
    return count;
}

static rl_result handle(const rl_task *task) {
    const js_value *text = rl_port(task, RL_TEXT("text"));
    if (!js_is(text, JS_STRING))
        return rl_fail_missing(RL_TEXT("task.port"), RL_TEXT("no text arrived on input port"), RL_TEXT("text"));
    rl_buffer out = {0}, ports = {0};
    masked count = mask(text->text, &out);
    rl_progress(RL_TEXT("masked"), RL_TEXT("1"));
    RL_PUT(&ports, "{\"text\":[");
    js_put_string(&ports, rl_made(&out));
    RL_PUT(&ports, "],\"report\":[{\"addresses\":");
    js_put_int(&ports, count.addresses);
    RL_PUT(&ports, ",\"numbers\":");
    js_put_int(&ports, count.numbers);
    RL_PUT(&ports, "}]}");
    return rl_output_all(rl_made(&ports), RL_TEXT(""));
}

RL_AGENT(handle)
