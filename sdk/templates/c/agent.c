/* Measures a text: words, sentences, and how long the longest sentence is. */
#include "runloop_agent.h"

static int is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static int ends_sentence(char c) { return c == '.' || c == '!' || c == '?'; }

/* Writes {words, sentences, longest}; 0 when there is nothing to read. */
static int measure(rl_text text, rl_buffer *out) {
    int64_t words = 0, sentences = 0, longest = 0, here = 0;
    int in_word = 0;
    for (size_t i = 0; i <= text.size; i++) {
        char c = i < text.size ? text.data[i] : '.'; /* the end of the text ends its last sentence */
        int letter = !is_blank(c) && !ends_sentence(c);
        if (letter && !in_word) here++;
        in_word = letter;
        if (ends_sentence(c) && here) {
            words += here, sentences++;
            if (here > longest) longest = here;
            here = 0;
        }
    }
    RL_PUT(out, "{\"words\":");
    js_put_int(out, words);
    RL_PUT(out, ",\"sentences\":");
    js_put_int(out, sentences);
    RL_PUT(out, ",\"longest\":");
    js_put_int(out, longest);
    RL_PUT(out, "}");
    return words > 0;
}

static rl_result empty(void) { return rl_fail(RL_TEXT("__NAME__.empty"), RL_TEXT("there is nothing to read")); }

static rl_result handle(const rl_task *task) {
    const js_value *text = rl_port(task, RL_TEXT("text"));
    if (!text) text = rl_param(task, RL_TEXT("text"));
    if (!text) return rl_fail_missing(RL_TEXT("task.with"), RL_TEXT("the opening gives no"), RL_TEXT("text"));
    rl_buffer out = {0};
    if (!measure(js_text(text), &out)) return empty();
    /* A refusal is a value: without a log line the work is still done. */
    rl_log(RL_TEXT("info"), RL_TEXT("measured a text"), rl_made(&out));
    return rl_output(RL_TEXT("out"), rl_made(&out));
}

static rl_result measure_tool(const js_value *args) {
    const js_value *text = js_get(args, RL_TEXT("text"));
    if (!js_is(text, JS_STRING)) return rl_fail(RL_TEXT("task.arguments"), RL_TEXT("argument 'text' is not text"));
    rl_buffer out = {0};
    return measure(text->text, &out) ? rl_result_of(rl_made(&out)) : empty();
}

/* What this agent does for others. 'rlp agent build' writes it into tools.json. */
static const rl_tool TOOLS[] = {{
    RL_TEXT("__NAME__.measure"),
    RL_TEXT("Counts the words and sentences of a text."),
    RL_TEXT("{\"type\": \"object\", \"properties\": {\"text\": {\"type\": \"string\"}}, \"required\": [\"text\"],"
            " \"additionalProperties\": false}"),
    RL_TEXT("{\"type\": \"object\", \"properties\": {\"words\": {\"type\": \"integer\"},"
            " \"sentences\": {\"type\": \"integer\"}, \"longest\": {\"type\": \"integer\"}},"
            " \"required\": [\"words\", \"sentences\", \"longest\"]}"),
    measure_tool,
}};

RL_AGENT_WITH_TOOLS(handle, TOOLS)
