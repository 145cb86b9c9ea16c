/* The gate, as a guest in C sees it: one function for every host call of the table in runloop/ops.py.
 *
 * Every function gives an rl_answer. A refusal is an ordinary answer: look at `refused`, then go on or end the attempt
 * with rl_refused. Arguments called `…_json` are JSON text that you wrote with the functions of json.h.
 */
#ifndef RUNLOOP_HOST_H
#define RUNLOOP_HOST_H

#include "json.h"

typedef struct {
    int refused;
    const js_value *value; /* the answer, or the part of it that matters; never NULL unless refused */
    rl_text bytes;         /* of what carries bytes: rl_random_bytes, rl_blob_read, rl_fetch */
    int64_t number;        /* of what gives a number: the time, a version, a status */
    rl_text code, message, hint; /* of a refusal; no hint has size 0 */
    int retryable;
} rl_answer;

static const js_value rl_null = {JS_NULL, {0, 0}, {0, 0}, NULL, NULL};

static rl_answer rl_no(rl_text code, rl_text message) {
    rl_answer made = {0};
    made.refused = 1, made.code = code, made.message = message;
    return made;
}

/* Any host call by name. */
RL_MAYBE static rl_answer rl_ask(rl_text op, rl_text args_json) {
    rl_answer made = {0};
    if (!js_is_utf8(args_json)) return rl_no(RL_TEXT("host.args"), RL_TEXT("the arguments are not UTF-8"));
    rl_result raw = rl_call(op, args_json);
    const js_value *value = js_parse(raw.text);
    if (!raw.failed) {
        if (!value) return rl_no(RL_TEXT("host.answer"), RL_TEXT("the host's answer is not JSON"));
        made.value = value;
        return made;
    }
    int shaped = js_is(value, JS_OBJECT);
    made.refused = 1;
    made.code = js_text(js_get(value, RL_TEXT("code")));
    made.message = js_text(js_get(value, RL_TEXT("message")));
    made.hint = js_text(js_get(value, RL_TEXT("hint")));
    made.retryable = js_bool(js_get(value, RL_TEXT("retryable")), 0);
    if (!made.code.size) made.code = RL_TEXT("host.error");
    if (!made.message.size)
        made.message = shaped || !raw.text.size ? RL_TEXT("the host call failed") : raw.text;
    return made;
}

/* --- arguments ------------------------------------------------------------------------------- */

static void rl_key(rl_buffer *to, rl_text name) {
    rl_put(to, to->size ? RL_TEXT(",\"") : RL_TEXT("{\""));
    rl_put(to, name);
    RL_PUT(to, "\":");
}

RL_MAYBE static void rl_arg_text(rl_buffer *to, rl_text name, rl_text value) {
    rl_key(to, name);
    js_put_string(to, value);
}

RL_MAYBE static void rl_arg_int(rl_buffer *to, rl_text name, int64_t value) {
    rl_key(to, name);
    js_put_int(to, value);
}

/* Left out when the text is empty. */
RL_MAYBE static void rl_arg_json(rl_buffer *to, rl_text name, rl_text json) {
    if (!json.size) return;
    rl_key(to, name);
    rl_put(to, json);
}

static rl_answer rl_ask_with(rl_text op, rl_buffer *args) {
    if (!args->size) RL_PUT(args, "{");
    RL_PUT(args, "}");
    return rl_ask(op, rl_made(args));
}

/* The named member of the answer, or null. */
static rl_answer rl_part(rl_answer made, rl_text name) {
    if (!made.refused) {
        const js_value *part = js_get(made.value, name);
        made.value = part ? part : &rl_null;
    }
    return made;
}

static rl_answer rl_number_of(rl_answer made, rl_text name) {
    if (!made.refused && !js_int(js_get(made.value, name), &made.number))
        return rl_no(RL_TEXT("host.answer"), RL_TEXT("the host's answer lacks a number"));
    return made;
}

/* --- bytes ----------------------------------------------------------------------------------- */

RL_MAYBE static void rl_put_base64(rl_buffer *to, rl_text data) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *from = (const unsigned char *)data.data;
    for (size_t i = 0; i < data.size; i += 3) {
        size_t have = data.size - i < 3 ? data.size - i : 3;
        uint32_t bits = (uint32_t)from[i] << 16 | (have > 1 ? (uint32_t)from[i + 1] << 8 : 0) | (have > 2 ? from[i + 2] : 0u);
        char four[4] = {letters[bits >> 18], letters[bits >> 12 & 63], have > 1 ? letters[bits >> 6 & 63] : '=',
                        have > 2 ? letters[bits & 63] : '='};
        rl_put(to, (rl_text){four, 4});
    }
}

static int rl_sextet(char c) {
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

/* Whether it is base64; `made` gets the bytes. */
RL_MAYBE static int rl_from_base64(rl_text text, rl_text *made) {
    if (text.size % 4) return 0;
    size_t padding = text.size && text.data[text.size - 1] == '=' ? 1 + (text.data[text.size - 2] == '=') : 0;
    char *data = rl_alloc(text.size / 4 * 3 + 1);
    size_t size = 0;
    for (size_t i = 0; i < text.size; i += 4) {
        uint32_t bits = 0;
        size_t have = i + 4 == text.size ? 4 - padding : 4;
        for (size_t j = 0; j < 4; j++) {
            int part = j < have ? rl_sextet(text.data[i + j]) : 0;
            if (part < 0) return 0;
            bits = bits << 6 | (uint32_t)part;
        }
        for (size_t j = 0; j + 1 < have; j++) data[size++] = (char)(bits >> (16 - 8 * j) & 255);
    }
    *made = (rl_text){data, size};
    return 1;
}

static rl_answer rl_bytes_of(rl_answer made) {
    const js_value *coded = made.refused ? NULL : js_get(made.value, RL_TEXT("base64"));
    if (made.refused || (js_is(coded, JS_STRING) && rl_from_base64(coded->text, &made.bytes))) return made;
    return rl_no(RL_TEXT("host.answer"), RL_TEXT("the host's answer carries no bytes"));
}

/* --- time, chance, talk ---------------------------------------------------------------------- */

/* `number` is Unix time in milliseconds, as recorded for this run. Needs capability time. */
RL_MAYBE static rl_answer rl_time_now(void) {
    return rl_number_of(rl_ask(RL_TEXT("time.now"), RL_TEXT("{}")), RL_TEXT("now_ms"));
}

/* `bytes` are `size` random ones, 1 to 65536, recorded for replay. Needs capability random. */
RL_MAYBE static rl_answer rl_random_bytes(size_t size) {
    rl_buffer args = {0};
    rl_arg_int(&args, RL_TEXT("n"), (int64_t)size);
    rl_answer made = rl_bytes_of(rl_ask_with(RL_TEXT("random.bytes"), &args));
    if (!made.refused && made.bytes.size != size)
        return rl_no(RL_TEXT("host.answer"), RL_TEXT("the host gave another number of bytes"));
    return made;
}

/* One log line; level is debug, info, warning or error; fields_json an object or empty. */
RL_MAYBE static rl_answer rl_log(rl_text level, rl_text message, rl_text fields_json) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("message"), message);
    rl_arg_text(&args, RL_TEXT("level"), level);
    rl_arg_json(&args, RL_TEXT("fields"), fields_json);
    return rl_ask_with(RL_TEXT("log.write"), &args);
}

/* Tell the person watching; fraction_json is a number from 0 to 1, or empty when it is not known. */
RL_MAYBE static rl_answer rl_progress(rl_text message, rl_text fraction_json) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("message"), message);
    rl_arg_json(&args, RL_TEXT("fraction"), fraction_json);
    return rl_ask_with(RL_TEXT("progress"), &args);
}

/* --- knowledge ------------------------------------------------------------------------------- */

/* `value` is the list of the best matches; kinds_json a list of contact, note, mail, or empty for all. */
RL_MAYBE static rl_answer rl_kb_search(rl_text query, int64_t k, rl_text kinds_json) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("query"), query);
    rl_arg_int(&args, RL_TEXT("k"), k);
    rl_arg_json(&args, RL_TEXT("kinds"), kinds_json);
    return rl_part(rl_ask_with(RL_TEXT("kb.search"), &args), RL_TEXT("items"));
}

/* `value` is the list of rows of one read-only SELECT, as objects by column name. */
RL_MAYBE static rl_answer rl_kb_query(rl_text sql, rl_text params_json, int64_t limit) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("sql"), sql);
    rl_arg_json(&args, RL_TEXT("params"), params_json);
    rl_arg_int(&args, RL_TEXT("limit"), limit);
    rl_answer made = rl_ask_with(RL_TEXT("kb.query"), &args);
    if (made.refused) return made;
    const js_value *columns = js_get(made.value, RL_TEXT("columns"));
    js_value *rows = js_get(made.value, RL_TEXT("rows"));
    if (!js_is(columns, JS_LIST) || !js_is(rows, JS_LIST))
        return rl_no(RL_TEXT("host.answer"), RL_TEXT("the host's answer has no rows"));
    for (js_value *row = rows->first; row; row = row->next) {
        if (row->kind != JS_LIST) continue;
        row->kind = JS_OBJECT;
        js_value *cell = row->first;
        for (const js_value *name = columns->first; name && cell; name = name->next, cell = cell->next)
            cell->key = js_text(name);
    }
    made.value = rows;
    return made;
}

/* `value` is one whole contact or document. */
RL_MAYBE static rl_answer rl_kb_read(rl_text kind, rl_text id) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("kind"), kind);
    rl_arg_text(&args, RL_TEXT("id"), id);
    return rl_part(rl_ask_with(RL_TEXT("kb.read"), &args), RL_TEXT("item"));
}

/* `value` is the graph of causes of a thing. */
RL_MAYBE static rl_answer rl_kb_why(rl_text reference) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("ref"), reference);
    return rl_ask_with(RL_TEXT("kb.why"), &args);
}

/* State a contact or a document of the agent's own: {kind, id}. Needs capability kb_write. */
RL_MAYBE static rl_answer rl_kb_propose(rl_text kind, rl_text payload_json) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("kind"), kind);
    rl_arg_json(&args, RL_TEXT("payload"), payload_json);
    return rl_ask_with(RL_TEXT("kb.propose"), &args);
}

/* --- memory, artifacts, blobs ---------------------------------------------------------------- */

/* `value` and, in `number`, its version; null and 0 for a key that was never written. Usual namespace: private. */
RL_MAYBE static rl_answer rl_memory_get(rl_text space, rl_text key) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("key"), key);
    rl_arg_text(&args, RL_TEXT("namespace"), space);
    return rl_part(rl_number_of(rl_ask_with(RL_TEXT("memory.get"), &args), RL_TEXT("version")), RL_TEXT("value"));
}

/* `number` is the new version. `expected` must be the version last read (0: must not exist); -1 writes anyway. */
RL_MAYBE static rl_answer rl_memory_put(rl_text space, rl_text key, rl_text value_json, int64_t expected) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("key"), key);
    rl_arg_text(&args, RL_TEXT("namespace"), space);
    rl_arg_json(&args, RL_TEXT("value"), value_json.size ? value_json : RL_TEXT("null"));
    if (expected >= 0) rl_arg_int(&args, RL_TEXT("expected_version"), expected);
    return rl_number_of(rl_ask_with(RL_TEXT("memory.put"), &args), RL_TEXT("version"));
}

/* Keep a text this run produced; `value` is its digest, for rl_output's artifacts. */
RL_MAYBE static rl_answer rl_put_text(rl_text name, rl_text media_type, rl_text text) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("name"), name);
    rl_arg_text(&args, RL_TEXT("media_type"), media_type);
    rl_arg_text(&args, RL_TEXT("text"), text);
    return rl_part(rl_ask_with(RL_TEXT("artifact.put"), &args), RL_TEXT("digest"));
}

/* Keep bytes this run produced; `value` is their digest. */
RL_MAYBE static rl_answer rl_put_bytes(rl_text name, rl_text media_type, rl_text data) {
    rl_buffer args = {0}, coded = {0};
    rl_put_base64(&coded, data);
    rl_arg_text(&args, RL_TEXT("name"), name);
    rl_arg_text(&args, RL_TEXT("media_type"), media_type);
    rl_arg_text(&args, RL_TEXT("base64"), rl_made(&coded));
    return rl_part(rl_ask_with(RL_TEXT("artifact.put"), &args), RL_TEXT("digest"));
}

/* `bytes` are up to `length` bytes of an artifact of the same run, from `offset`. */
RL_MAYBE static rl_answer rl_blob_read(rl_text digest, int64_t offset, int64_t length) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("digest"), digest);
    rl_arg_int(&args, RL_TEXT("offset"), offset);
    rl_arg_int(&args, RL_TEXT("length"), length);
    return rl_bytes_of(rl_ask_with(RL_TEXT("blob.read"), &args));
}

/* --- models ---------------------------------------------------------------------------------- */

/* What to ask a model; what is empty is left out. */
typedef struct {
    rl_text messages_json; /* [{"role": "system"|"user"|"assistant", "content": "…"}…] */
    rl_text model;         /* a pattern from policy */
    int64_t max_tokens;    /* 0: the host's own */
    rl_text temperature_json, json_schema_json, facts_json;
    rl_text template; /* what the offline rules provider fills in: {{name}} from facts */
    int stream;       /* 1: `value` is the handle for rl_next_message */
} rl_prompt;

/* `value` is {text, provider, model, generated, finish, …}. Needs capability model. */
RL_MAYBE static rl_answer rl_complete(const rl_prompt *prompt) {
    rl_buffer args = {0};
    rl_arg_json(&args, RL_TEXT("messages"), prompt->messages_json);
    if (prompt->model.size) rl_arg_text(&args, RL_TEXT("model"), prompt->model);
    if (prompt->max_tokens > 0) rl_arg_int(&args, RL_TEXT("max_tokens"), prompt->max_tokens);
    rl_arg_json(&args, RL_TEXT("temperature"), prompt->temperature_json);
    rl_arg_json(&args, RL_TEXT("json_schema"), prompt->json_schema_json);
    if (prompt->template.size) rl_arg_text(&args, RL_TEXT("template"), prompt->template);
    rl_arg_json(&args, RL_TEXT("facts"), prompt->facts_json);
    if (prompt->stream) rl_arg_json(&args, RL_TEXT("stream"), RL_TEXT("true"));
    rl_answer made = rl_ask_with(RL_TEXT("model.complete"), &args);
    return prompt->stream ? rl_part(made, RL_TEXT("stream")) : made;
}

/* The next item of a stream in `value`; `number` is 0 at its end, otherwise 1. */
RL_MAYBE static rl_answer rl_next_message(rl_text stream) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("stream"), stream);
    rl_answer made = rl_ask_with(RL_TEXT("msg.next"), &args);
    if (!made.refused) made.number = !js_bool(js_get(made.value, RL_TEXT("done")), 0);
    return rl_part(made, RL_TEXT("item"));
}

/* --- files ----------------------------------------------------------------------------------- */

/* `bytes` are up to `length` bytes of a file, from `offset`. Needs capability fs_ro or fs_rw for its directory. */
RL_MAYBE static rl_answer rl_fs_read(rl_text path, int64_t offset, int64_t length) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("path"), path);
    rl_arg_int(&args, RL_TEXT("offset"), offset);
    rl_arg_int(&args, RL_TEXT("length"), length);
    rl_answer made = rl_ask_with(RL_TEXT("fs.read"), &args);
    if (made.refused) return made;
    const js_value *text = js_get(made.value, RL_TEXT("text"));
    if (!js_is(text, JS_STRING)) return rl_bytes_of(made);
    made.bytes = js_text(text);
    return made;
}

/* What a file may hold before it is written. */
typedef enum {
    RL_FS_ANYTHING, /* whatever is there, or nothing */
    RL_FS_NOTHING,  /* it must not exist */
    RL_FS_DIGEST,   /* `digest`, as it was told with the last reading */
} rl_fs_before;

/* Replace a file or make one, whole or not at all; `value` is its digest. Needs capability fs_rw. */
RL_MAYBE static rl_answer rl_fs_write(rl_text path, rl_text data, rl_fs_before before, rl_text digest) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("path"), path);
    if (js_is_utf8(data)) {
        rl_arg_text(&args, RL_TEXT("text"), data);
    } else {
        rl_buffer coded = {0};
        rl_put_base64(&coded, data);
        rl_arg_text(&args, RL_TEXT("base64"), rl_made(&coded));
    }
    if (before != RL_FS_ANYTHING)
        rl_arg_text(&args, RL_TEXT("expected"), before == RL_FS_DIGEST ? digest : RL_TEXT(""));
    return rl_part(rl_ask_with(RL_TEXT("fs.write"), &args), RL_TEXT("digest"));
}

/* `value` is the list of names after `after`, at most `limit`: {name, kind, size}; `number` 1: there are more. */
RL_MAYBE static rl_answer rl_fs_list(rl_text path, rl_text after, int64_t limit) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("path"), path);
    rl_arg_text(&args, RL_TEXT("after"), after);
    rl_arg_int(&args, RL_TEXT("limit"), limit);
    rl_answer made = rl_ask_with(RL_TEXT("fs.list"), &args);
    if (!made.refused) made.number = js_bool(js_get(made.value, RL_TEXT("truncated")), 0);
    return rl_part(made, RL_TEXT("entries"));
}

/* `value` is {kind, size, mtime_ms}, for a file with its digest when `digest` is 1. */
RL_MAYBE static rl_answer rl_fs_stat(rl_text path, int digest) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("path"), path);
    if (digest) rl_arg_json(&args, RL_TEXT("digest"), RL_TEXT("true"));
    return rl_ask_with(RL_TEXT("fs.stat"), &args);
}

/* --- the web, tools, effects ----------------------------------------------------------------- */

/* One HTTP request; what is empty is left out. */
typedef struct {
    rl_text method, url; /* no method is GET */
    rl_text headers_json;
    int has_body;
    rl_text body;
    int64_t max_bytes; /* 0: the host's own limit */
} rl_request;

/* `number` is the status, `bytes` the body, `value` {url, headers, truncated, …}. Needs capability net. */
RL_MAYBE static rl_answer rl_fetch(const rl_request *request) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("url"), request->url);
    rl_arg_text(&args, RL_TEXT("method"), request->method.size ? request->method : RL_TEXT("GET"));
    rl_arg_json(&args, RL_TEXT("headers"), request->headers_json);
    if (request->has_body && js_is_utf8(request->body)) {
        rl_arg_text(&args, RL_TEXT("text"), request->body);
    } else if (request->has_body) {
        rl_buffer coded = {0};
        rl_put_base64(&coded, request->body);
        rl_arg_text(&args, RL_TEXT("base64"), rl_made(&coded));
    }
    if (request->max_bytes > 0) rl_arg_int(&args, RL_TEXT("max_bytes"), request->max_bytes);
    rl_answer made = rl_number_of(rl_ask_with(RL_TEXT("http.fetch"), &args), RL_TEXT("status"));
    if (made.refused) return made;
    const js_value *coded = js_get(made.value, RL_TEXT("base64"));
    if (js_is(coded, JS_STRING)) return rl_bytes_of(made);
    made.bytes = js_text(js_get(made.value, RL_TEXT("text")));
    return made;
}

/* `value` is the list of the agent's own tools: {id, description, input_schema, result_schema, granted, missing}. */
RL_MAYBE static rl_answer rl_list_tools(void) {
    return rl_part(rl_ask(RL_TEXT("tool.list"), RL_TEXT("{}")), RL_TEXT("tools"));
}

/* Call one of the agent's own tools; `value` fits the tool's result_schema. */
RL_MAYBE static rl_answer rl_call_tool(rl_text tool, rl_text args_json) {
    rl_buffer args = {0};
    rl_arg_text(&args, RL_TEXT("tool"), tool);
    rl_arg_json(&args, RL_TEXT("args"), args_json);
    return rl_part(rl_ask_with(RL_TEXT("tool.call"), &args), RL_TEXT("result"));
}

/* A mail; what is empty is left out. Lists are JSON lists of addresses. */
typedef struct {
    rl_text to_json, subject, body, cc_json, bcc_json, in_reply_to;
} rl_mail;

/* Send a mail, after a person approved its exact bytes. Needs capability mail. */
RL_MAYBE static rl_answer rl_send_mail(const rl_mail *mail) {
    rl_buffer args = {0};
    rl_arg_json(&args, RL_TEXT("to"), mail->to_json);
    rl_arg_text(&args, RL_TEXT("subject"), mail->subject);
    rl_arg_text(&args, RL_TEXT("body"), mail->body);
    rl_arg_json(&args, RL_TEXT("cc"), mail->cc_json);
    rl_arg_json(&args, RL_TEXT("bcc"), mail->bcc_json);
    if (mail->in_reply_to.size) rl_arg_text(&args, RL_TEXT("in_reply_to"), mail->in_reply_to);
    return rl_ask_with(RL_TEXT("mail.send"), &args);
}

#endif
