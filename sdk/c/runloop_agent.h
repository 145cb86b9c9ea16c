/* An agent in C from a handler and, where there are any, tools.
 *
 *     #include "runloop_agent.h"
 *
 *     static rl_result handle(const rl_task *task) {
 *         const js_value *text = rl_port(task, RL_TEXT("text"));
 *         if (!js_is(text, JS_STRING)) return rl_fail(RL_TEXT("task.port"), RL_TEXT("no text arrived"));
 *         rl_buffer out = {0};
 *         js_put_int(&out, (int64_t)rl_length(text->text));
 *         return rl_output(RL_TEXT("out"), rl_made(&out));
 *     }
 *
 *     RL_AGENT(handle)
 *
 * Knows: the three things an agent is asked for (handle, describe, tool) and how an attempt ends.
 */
#ifndef RUNLOOP_AGENT_H
#define RUNLOOP_AGENT_H

#include "runloop.h"

#include "json.h"
#include "runloop_host.h"

/* One piece of work. Every part is an object, perhaps an empty one. */
typedef struct {
    const js_value *ports;   /* input port -> list of the values delivered to it, in order */
    const js_value *with;    /* the node's `with` block, templates resolved */
    const js_value *context; /* agent, node, attempt, run, trace_id, and deadline_ms where there is one */
    const js_value *message; /* the envelope that asked: type, payload, meta */
} rl_task;

/* Something an agent can do for others. */
typedef struct {
    rl_text id;          /* family.verb, unique in the agent */
    rl_text description; /* one sentence for whoever chooses */
    rl_text input_schema, result_schema; /* JSON Schema, as JSON text */
    rl_result (*call)(const js_value *args); /* ends with rl_result_of or rl_fail */
} rl_tool;

/* --- ends of an attempt ---------------------------------------------------------------------- */

static rl_result rl_fail_as(rl_text code, rl_text message, int retryable) {
    rl_buffer out = {0};
    if (!js_is_utf8(message)) message = RL_TEXT("(the words of the failure are not UTF-8)");
    RL_PUT(&out, "{\"code\":");
    js_put_string(&out, js_is_utf8(code) ? code : RL_TEXT("agent.output"));
    RL_PUT(&out, ",\"message\":");
    js_put_string(&out, message);
    rl_put(&out, retryable ? RL_TEXT(",\"retryable\":true}") : RL_TEXT(",\"retryable\":false}"));
    return (rl_result){1, rl_made(&out)};
}

/* The work cannot be done, and here is why, in words for a person. */
RL_MAYBE static rl_result rl_fail(rl_text code, rl_text message) { return rl_fail_as(code, message, 0); }

/* It cannot be done now; the engine may try again as the opening's retry says. */
RL_MAYBE static rl_result rl_fail_for_now(rl_text code, rl_text message) { return rl_fail_as(code, message, 1); }

/* A refusal that is not survived. */
RL_MAYBE static rl_result rl_refused(const rl_answer *answer) {
    rl_buffer words = {0};
    rl_put(&words, answer->message);
    if (answer->hint.size) RL_PUT(&words, "; "), rl_put(&words, answer->hint);
    return rl_fail_as(answer->code, rl_made(&words), answer->retryable);
}

/* Several values: {"port": [value…], …} and ["digest"…], as JSON text; no artifacts may be empty text. */
RL_MAYBE static rl_result rl_output_all(rl_text ports_json, rl_text artifacts_json) {
    rl_buffer out = {0};
    RL_PUT(&out, "{\"ports\":");
    rl_put(&out, ports_json);
    RL_PUT(&out, ",\"artifacts\":");
    rl_put(&out, artifacts_json.size ? artifacts_json : RL_TEXT("[]"));
    RL_PUT(&out, "}");
    return (rl_result){0, rl_made(&out)};
}

/* One value on one port. */
RL_MAYBE static rl_result rl_output(rl_text port, rl_text value_json) {
    rl_buffer ports = {0};
    RL_PUT(&ports, "{");
    js_put_string(&ports, port);
    RL_PUT(&ports, ":[");
    rl_put(&ports, value_json);
    RL_PUT(&ports, "]}");
    return rl_output_all(rl_made(&ports), RL_TEXT(""));
}

/* The result of a tool. */
RL_MAYBE static rl_result rl_result_of(rl_text value_json) { return rl_output(RL_TEXT("result"), value_json); }

/* --- a task ---------------------------------------------------------------------------------- */

/* The last value on a port, or NULL when none arrived. */
RL_MAYBE static const js_value *rl_port(const rl_task *task, rl_text name) {
    return js_last(js_get(task->ports, name));
}

/* A value of the `with` block, or NULL. */
RL_MAYBE static const js_value *rl_param(const rl_task *task, rl_text name) { return js_get(task->with, name); }

/* rl_fail with a name in the words: task.port or task.with. */
RL_MAYBE static rl_result rl_fail_missing(rl_text code, rl_text what, rl_text name) {
    rl_buffer words = {0};
    rl_put(&words, what);
    RL_PUT(&words, " '");
    rl_put(&words, name);
    RL_PUT(&words, "'");
    return rl_fail_as(code, rl_made(&words), 0);
}

/* --- serving --------------------------------------------------------------------------------- */

static rl_result rl_described(const rl_tool *tools, size_t count) {
    rl_buffer out = {0};
    const rl_tool *last = NULL;
    RL_PUT(&out, "{\"tools\":[");
    for (size_t written = 0; written < count; written++) { /* in the order of their ids */
        const rl_tool *next = NULL;
        for (size_t i = 0; i < count; i++) {
            const rl_tool *tool = &tools[i], *than[2] = {last, next};
            int later[2];
            for (int j = 0; j < 2; j++) {
                size_t size = !than[j] ? 0 : tool->id.size < than[j]->id.size ? tool->id.size : than[j]->id.size;
                int order = !than[j] ? 0 : memcmp(tool->id.data, than[j]->id.data, size);
                later[j] = !than[j] || order > 0 || (order == 0 && tool->id.size > than[j]->id.size);
            }
            if ((!last || later[0]) && (!next || !later[1])) next = tool;
        }
        if (!next) return rl_fail(RL_TEXT("agent.tools"), RL_TEXT("two tools have one id"));
        if (last) RL_PUT(&out, ",");
        RL_PUT(&out, "{\"id\":");
        js_put_string(&out, next->id);
        RL_PUT(&out, ",\"description\":");
        js_put_string(&out, next->description);
        RL_PUT(&out, ",\"input_schema\":");
        rl_put(&out, next->input_schema);
        RL_PUT(&out, ",\"result_schema\":");
        rl_put(&out, next->result_schema);
        RL_PUT(&out, "}");
        last = next;
    }
    RL_PUT(&out, "]}");
    if (!js_parse(rl_made(&out))) return rl_fail(RL_TEXT("agent.tools"), RL_TEXT("a tool's schema is not JSON"));
    return (rl_result){0, rl_made(&out)};
}

static rl_result rl_serve(rl_text input, rl_result (*handle)(const rl_task *), const rl_tool *tools, size_t count) {
    static const rl_text names[] = {RL_TEXT("ports"), RL_TEXT("with"), RL_TEXT("context"), RL_TEXT("message"),
                                    RL_TEXT("args")};
    const js_value *parts[5], *given = js_parse(input);
    if (!js_is(given, JS_OBJECT)) return rl_fail(RL_TEXT("abi.input"), RL_TEXT("the input is not a JSON object"));
    for (int i = 0; i < 5; i++) {
        js_value *part = js_get(given, names[i]);
        if (!part || part->kind == JS_NULL) {
            part = rl_alloc(sizeof *part);
            *part = (js_value){JS_OBJECT, {0, 0}, {0, 0}, NULL, NULL};
        }
        if (part->kind != JS_OBJECT)
            return rl_fail_missing(RL_TEXT("abi.input"), RL_TEXT("not an object in the input:"), names[i]);
        parts[i] = part;
    }
    for (const js_value *port = parts[0]->first; port; port = port->next)
        if (port->kind != JS_LIST)
            return rl_fail_missing(RL_TEXT("abi.input"), RL_TEXT("not a list of values on port"), port->key);
    const js_value *op = js_get(given, RL_TEXT("op"));
    if (op && op->kind != JS_STRING) return rl_fail(RL_TEXT("abi.input"), RL_TEXT("'op' of the input is not text"));
    if (!op || rl_equal(op->text, RL_TEXT("handle"))) {
        rl_task task = {parts[0], parts[1], parts[2], parts[3]};
        return handle(&task);
    }
    if (rl_equal(op->text, RL_TEXT("describe"))) return rl_described(tools, count);
    if (!rl_equal(op->text, RL_TEXT("tool")))
        return rl_fail_missing(RL_TEXT("abi.op"), RL_TEXT("this agent cannot do"), op->text);
    rl_text wanted = js_text(js_get(given, RL_TEXT("tool")));
    for (size_t i = 0; i < count; i++)
        if (rl_equal(tools[i].id, wanted)) return tools[i].call(parts[4]);
    return rl_fail_missing(RL_TEXT("abi.tool"), RL_TEXT("there is no tool"), wanted);
}

/* What leaves the guest must be UTF-8; half a surrogate pair of the input would end the instance. */
static rl_result rl_checked(rl_result result) {
    if (js_is_utf8(result.text)) return result;
    return rl_fail(RL_TEXT("agent.output"), RL_TEXT("the result is not UTF-8"));
}

/* Write one of these once, at the end of the agent's source file. */
#define RL_AGENT(handle) \
    static rl_result rl_handle(rl_text input) { return rl_checked(rl_serve(input, (handle), NULL, 0)); }
#define RL_AGENT_WITH_TOOLS(handle, tools) \
    static rl_result rl_handle(rl_text input) { \
        return rl_checked(rl_serve(input, (handle), (tools), sizeof(tools) / sizeof *(tools))); \
    }

#endif
