/* Reviews a mail by fixed rules: the twin of ../critic in C. Both give the same answers; change both or neither. */
#include "json.h"
#include "runloop.h"

enum { MIN_BODY = 20, MAX_BODY = 20000, MAX_SUBJECT = 120, MAX_ADDRESS = 254, CHECKS = 9 };

static const rl_text LEFTOVERS[] = {RL_TEXT("{{"),    RL_TEXT("}}"),     RL_TEXT("[Name]"), RL_TEXT("[name]"),
                                    RL_TEXT("[Your"), RL_TEXT("[your"),  RL_TEXT("<name>"), RL_TEXT("TODO"),
                                    RL_TEXT("TBD"),   RL_TEXT("XXX"),    RL_TEXT("Lorem ipsum")};

/* Name and, for when it does not hold, the note. The last one is advice only. */
static const rl_text NAMES[CHECKS] = {
    RL_TEXT("recipient"),   RL_TEXT("subject"), RL_TEXT("subject_length"), RL_TEXT("subject_line"), RL_TEXT("body"),
    RL_TEXT("body_length"), RL_TEXT("visible"), RL_TEXT("finished"),       RL_TEXT("sourced")};
static const rl_text NOTES[CHECKS] = {RL_TEXT("the recipient is missing or not an address"),
                                      RL_TEXT("the subject is missing"),
                                      RL_TEXT("the subject is longer than 120 characters"),
                                      RL_TEXT("the subject is more than one line"),
                                      RL_TEXT("the body is missing or shorter than 20 characters"),
                                      RL_TEXT("the body is longer than 20000 characters"),
                                      RL_TEXT("there are control, bidi or zero-width characters in the text"),
                                      RL_TEXT("something was left to fill in"),
                                      RL_TEXT("no source backs this draft")};

/* Names in alphabetical order: the output is byte for byte that of the twin, which sorts its keys. */
static const int SORTED[CHECKS] = {4, 5, 7, 0, 8, 1, 2, 3, 6};

static int is_kind(const js_value *value, js_kind kind) { return value && value->kind == kind; }

/* Characters, not bytes. */
static size_t length(rl_text text) {
    size_t count = 0;
    for (size_t i = 0; i < text.size; i++) count += ((unsigned char)text.data[i] & 0xC0) != 0x80;
    return count;
}

static int blank(rl_text text) {
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (c != ' ' && c != '\t' && c != '\r' && c != '\n') return 0;
    }
    return 1;
}

static int holds(rl_text text, rl_text part) {
    for (size_t i = 0; i + part.size <= text.size; i++)
        if (!memcmp(text.data + i, part.data, part.size)) return 1;
    return 0;
}

static int hidden(uint32_t code) {
    return (code < 0x20 && code != 0x09 && code != 0x0A && code != 0x0D) || (code >= 0x7F && code <= 0x9F) ||
           code == 0xAD || code == 0x061C || code == 0x180E || code == 0xFEFF || (code >= 0x200B && code <= 0x200F) ||
           (code >= 0x2028 && code <= 0x202E) || (code >= 0x2060 && code <= 0x206F) ||
           (code >= 0xD800 && code <= 0xDFFF) || (code >= 0xE0000 && code <= 0xE007F);
}

static int visible(rl_text text) {
    for (size_t i = 0; i < text.size;) {
        unsigned char c = (unsigned char)text.data[i++];
        uint32_t code = c < 0x80 ? c : c < 0xE0 ? c & 31u : c < 0xF0 ? c & 15u : c & 7u;
        while (i < text.size && ((unsigned char)text.data[i] & 0xC0) == 0x80)
            code = code << 6 | ((unsigned char)text.data[i++] & 63u);
        if (hidden(code)) return 0;
    }
    return 1;
}

static int is_address(const js_value *value) {
    if (!is_kind(value, JS_STRING) || value->text.size > MAX_ADDRESS) return 0;
    size_t signs = 0, place = 0;
    for (size_t i = 0; i < value->text.size; i++) {
        unsigned char c = (unsigned char)value->text.data[i];
        if (c <= ' ' || c == 0x7F) return 0;
        if (c == '@') signs++, place = i;
    }
    return signs == 1 && place > 0 && place + 1 < value->text.size;
}

static int all_addresses(const js_value *list) {
    if (!is_kind(list, JS_LIST) || !list->first) return 0;
    for (const js_value *item = list->first; item; item = item->next)
        if (!is_address(item)) return 0;
    return 1;
}

static void judge(const js_value *draft, int checks[CHECKS]) {
    js_value *subject_value = js_get(draft, RL_TEXT("subject")), *body_value = js_get(draft, RL_TEXT("body"));
    js_value *sources = js_get(draft, RL_TEXT("sources"));
    int has_subject = is_kind(subject_value, JS_STRING), has_body = is_kind(body_value, JS_STRING);
    rl_text subject = has_subject ? subject_value->text : RL_TEXT(""), body = has_body ? body_value->text : RL_TEXT("");
    int finished = 1;
    for (size_t i = 0; i < sizeof LEFTOVERS / sizeof *LEFTOVERS; i++)
        finished &= !holds(subject, LEFTOVERS[i]) && !holds(body, LEFTOVERS[i]);
    checks[0] = all_addresses(js_get(draft, RL_TEXT("to")));
    checks[1] = !blank(subject);
    checks[2] = has_subject && length(subject) <= MAX_SUBJECT;
    checks[3] = has_subject && !holds(subject, RL_TEXT("\n")) && !holds(subject, RL_TEXT("\r"));
    checks[4] = !blank(body) && length(body) >= MIN_BODY;
    checks[5] = has_body && length(body) <= MAX_BODY;
    checks[6] = visible(subject) && visible(body);
    checks[7] = finished;
    checks[8] = is_kind(sources, JS_LIST) && sources->first;
}

static rl_result fail(rl_text code, rl_text message) {
    rl_buffer out = {0};
    RL_PUT(&out, "{\"code\": \"");
    rl_put(&out, code);
    RL_PUT(&out, "\", \"message\": \"");
    rl_put(&out, message);
    RL_PUT(&out, "\", \"retryable\": false}");
    return (rl_result){1, {out.data, out.size}};
}

static rl_result rl_handle(rl_text input) {
    js_value *task = js_parse(input), *op = js_get(task, RL_TEXT("op"));
    if (!is_kind(task, JS_OBJECT)) return fail(RL_TEXT("abi.input"), RL_TEXT("the input is not a JSON object"));
    if (op && !(op->kind == JS_STRING && op->text.size == 6 && !memcmp(op->text.data, "handle", 6)))
        return fail(RL_TEXT("abi.op"), RL_TEXT("this agent can do nothing but 'handle'"));
    js_value *draft = js_last(js_get(js_get(task, RL_TEXT("ports")), RL_TEXT("in")));
    if (!draft) return fail(RL_TEXT("task.port"), RL_TEXT("nothing arrived on input port 'in'"));
    if (draft->kind != JS_OBJECT)
        return fail(RL_TEXT("critic.draft"), RL_TEXT("the draft on port 'in' is not an object"));

    int checks[CHECKS], ok = 1, notes = 0;
    judge(draft, checks);
    for (int i = 0; i < CHECKS - 1; i++) ok &= checks[i];
    rl_buffer out = {0};
    RL_PUT(&out, "{\"artifacts\":[],\"ports\":{\"review\":[{\"checks\":{");
    for (int i = 0; i < CHECKS; i++) {
        if (i) RL_PUT(&out, ",");
        RL_PUT(&out, "\"");
        rl_put(&out, NAMES[SORTED[i]]);
        rl_put(&out, checks[SORTED[i]] ? RL_TEXT("\":true") : RL_TEXT("\":false"));
    }
    RL_PUT(&out, "},\"notes\":[");
    for (int i = 0; i < CHECKS; i++) {
        if (checks[i]) continue;
        if (notes++) RL_PUT(&out, ",");
        RL_PUT(&out, "\"");
        rl_put(&out, NOTES[i]);
        RL_PUT(&out, "\"");
    }
    rl_put(&out, ok ? RL_TEXT("],\"ok\":true}]}}") : RL_TEXT("],\"ok\":false}]}}"));
    return (rl_result){0, {out.data, out.size}};
}
