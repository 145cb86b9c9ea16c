/* A host for agents under test, on the author's own machine: no daemon, no sandbox.
 *
 *     #include "../agent.c"
 *     #include "runloop_test.h"
 *
 *     int main(void) {
 *         rl_script("kb.search", "{\"items\":[]}");
 *         rl_test("nothing found", "{\"ports\":{\"text\":[\"x\"]}}", "{\"ports\":{\"out\":[0]}}");
 *         return rl_run_cases();
 *     }
 *
 * Answers are scripted; clock, randomness, log and progress need no script. Knows how to run an agent as the sandbox
 * does. Does not know policy, quotas or fuel: an agent that passes here may still be refused by the gate.
 */
#ifndef RUNLOOP_TEST_H
#define RUNLOOP_TEST_H

#include <stdio.h>
#include <stdlib.h>

enum { RL_SCRIPTS = 64, RL_LARGEST_CASES = 4 << 20 };

static struct {
    rl_text op, text;
    int refused;
} rl_scripts[RL_SCRIPTS];
static int rl_scripted, rl_wrong, rl_calls;

RL_MAYBE static rl_text rl_of(const char *text) { return (rl_text){text, strlen(text)}; }

static void rl_script_as(rl_text op, rl_text text, int refused) {
    if (rl_scripted == RL_SCRIPTS) abort();
    rl_scripts[rl_scripted].op = op, rl_scripts[rl_scripted].text = text;
    rl_scripts[rl_scripted++].refused = refused;
}

/* Answer every call of an op, until the next rl_script_anew. The last script of an op counts. */
RL_MAYBE static void rl_script(const char *op, const char *answer_json) {
    rl_script_as(rl_of(op), rl_of(answer_json), 0);
}

/* Refuse every call of an op: {"code": …, "message": …}. */
RL_MAYBE static void rl_script_refusal(const char *op, const char *refusal_json) {
    rl_script_as(rl_of(op), rl_of(refusal_json), 1);
}

RL_MAYBE static void rl_script_anew(void) { rl_scripted = 0; }

static rl_result rl_call(rl_text op, rl_text args) {
    rl_calls++;
    const js_value *given = js_parse(args);
    if (!js_is(given, JS_OBJECT)) {
        fprintf(stderr, "the arguments of %.*s are no JSON object\n", (int)op.size, op.data);
        abort();
    }
    for (int i = rl_scripted; i--;)
        if (rl_equal(rl_scripts[i].op, op)) return (rl_result){rl_scripts[i].refused, rl_scripts[i].text};
    if (rl_equal(op, RL_TEXT("time.now"))) return (rl_result){0, RL_TEXT("{\"now_ms\":1750000000000}")};
    if (rl_equal(op, RL_TEXT("log.write")) || rl_equal(op, RL_TEXT("progress"))) return (rl_result){0, RL_TEXT("{}")};
    int64_t wanted;
    if (rl_equal(op, RL_TEXT("random.bytes")) && js_int(js_get(given, RL_TEXT("n")), &wanted) && wanted > 0) {
        rl_buffer out = {0};
        char *data = rl_alloc((size_t)wanted);
        for (int64_t i = 0; i < wanted; i++) data[i] = (char)(i % 251);
        RL_PUT(&out, "{\"base64\":\"");
        rl_put_base64(&out, (rl_text){data, (size_t)wanted});
        RL_PUT(&out, "\"}");
        return (rl_result){0, rl_made(&out)};
    }
    fprintf(stderr, "the agent called %.*s, which the test gives no answer for\n", (int)op.size, op.data);
    abort();
}

/* Whether every member that `part` names is in `whole`, with an equal value. */
static int rl_includes(const js_value *whole, const js_value *part) {
    if (!part) return 1;
    if (!whole || whole->kind != part->kind) return 0;
    if (part->kind == JS_STRING) return rl_equal(whole->text, part->text);
    if (part->kind == JS_NUMBER) /* both stand inside longer texts that go on with no digit */
        return rl_equal(whole->text, part->text) || strtod(whole->text.data, NULL) == strtod(part->text.data, NULL);
    const js_value *item = part->first, *found = whole->first;
    for (; item; item = item->next) {
        if (!rl_includes(part->kind == JS_OBJECT ? js_get(whole, item->key) : found, item)) return 0;
        if (part->kind == JS_OBJECT && !js_get(whole, item->key)) return 0;
        if (part->kind == JS_LIST) {
            if (!found) return 0;
            found = found->next;
        }
    }
    return part->kind != JS_LIST || !found;
}

static void rl_judge(rl_text name, rl_text input, const js_value *expected) {
    rl_text code = js_text(js_get(expected, RL_TEXT("error")));
    rl_result result = rl_handle(input);
    const js_value *made = js_parse(result.text);
    int fits = made && (code.size ? result.failed && rl_equal(js_text(js_get(made, RL_TEXT("code"))), code)
                                  : !result.failed && rl_includes(made, expected));
    if (fits) return;
    rl_wrong++;
    fprintf(stderr, "%.*s: got %s %.*s\n", (int)name.size, name.data, result.failed ? "the failure" : "",
            (int)result.text.size, result.text.data);
}

/* One input, and what its output must include, or {"error": "code"}. */
RL_MAYBE static void rl_test(const char *name, const char *input_json, const char *expected_json) {
    const js_value *expected = js_parse(rl_of(expected_json));
    if (!expected) {
        fprintf(stderr, "%s: what is expected is not JSON\n", name);
        abort();
    }
    rl_judge(rl_of(name), rl_of(input_json), expected);
    rl_top = 0;
}

static void rl_run_case(const js_value *wanted) {
    rl_buffer input = {0};
    const js_value *op = js_get(wanted, RL_TEXT("op")), *host = js_get(wanted, RL_TEXT("host"));
    rl_arg_text(&input, RL_TEXT("op"), js_is(op, JS_STRING) ? op->text : RL_TEXT("handle"));
    static const rl_text names[] = {RL_TEXT("ports"), RL_TEXT("with"), RL_TEXT("tool"), RL_TEXT("args")};
    for (int i = 0; i < 4; i++) {
        rl_buffer value = {0};
        js_put(&value, js_get(wanted, names[i]));
        rl_arg_json(&input, names[i], rl_made(&value));
    }
    RL_PUT(&input, "}");
    rl_script_anew();
    for (const js_value *answer = js_is(host, JS_OBJECT) ? host->first : NULL; answer; answer = answer->next) {
        rl_buffer text = {0};
        const js_value *refusal = js_get(answer, RL_TEXT("refuse"));
        js_put(&text, refusal ? refusal : answer);
        rl_script_as(answer->key, rl_made(&text), refusal != NULL);
    }
    rl_judge(js_text(js_get(wanted, RL_TEXT("name"))), rl_made(&input), js_get(wanted, RL_TEXT("expect")));
}

/* Runs the cases of tests/cases.toml, which `rlp agent test` hands over as JSON, and ends the test: return it. */
RL_MAYBE static int rl_run_cases(void) {
    static char text[RL_LARGEST_CASES];
    const char *path = getenv("RUNLOOP_CASES");
    if (path) {
        FILE *file = fopen(path, "rb");
        size_t size = file ? fread(text, 1, sizeof text, file) : 0;
        if (file) fclose(file);
        const js_value *cases = js_parse((rl_text){text, size});
        if (!js_is(cases, JS_LIST)) {
            fprintf(stderr, "RUNLOOP_CASES names no list of cases\n");
            return 1;
        }
        for (const js_value *wanted = cases->first; wanted; wanted = wanted->next) rl_run_case(wanted);
    }
    if (rl_wrong) fprintf(stderr, "%d wrong\n", rl_wrong);
    return rl_wrong != 0;
}

#endif
