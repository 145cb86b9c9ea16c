/* The probe in C: does what the vectors of sdk/conformance command, with nothing but the public headers. */
#include "runloop_agent.h"

static rl_result fail_tool(const js_value *args) {
    (void)args;
    return rl_fail_for_now(RL_TEXT("probe.failed"), RL_TEXT("as told"));
}

static rl_result add(const js_value *args) {
    int64_t a, b, sum;
    if (!js_int(js_get(args, RL_TEXT("a")), &a) || !js_int(js_get(args, RL_TEXT("b")), &b) ||
        __builtin_add_overflow(a, b, &sum))
        return rl_fail(RL_TEXT("task.arguments"), RL_TEXT("'a' and 'b' must be whole numbers"));
    rl_buffer out = {0};
    js_put_int(&out, sum);
    return rl_result_of(rl_made(&out));
}

static const rl_tool TOOLS[] = {
    {RL_TEXT("probe.fail"), RL_TEXT("Fails."), RL_TEXT("{\"type\":\"object\"}"), RL_TEXT("{}"), fail_tool},
    {RL_TEXT("probe.add"), RL_TEXT("Adds two numbers."),
     RL_TEXT("{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\"},\"b\":{\"type\":\"number\"}},"
             "\"required\":[\"a\",\"b\"]}"),
     RL_TEXT("{\"type\":\"number\"}"), add}};

#define GET(name) js_get(args, RL_TEXT(name))
#define STR(name) js_text(GET(name))
#define IS(name) rl_equal(op, RL_TEXT(name))

static rl_text json(const js_value *value) {
    rl_buffer out = {0};
    if (value) js_put(&out, value);
    return rl_made(&out);
}

static int64_t whole(const js_value *value, int64_t otherwise) {
    int64_t made;
    return js_int(value, &made) ? made : otherwise;
}

static void put_hex(rl_buffer *out, rl_text data) {
    static const char digits[] = "0123456789abcdef";
    RL_PUT(out, "\"");
    for (size_t i = 0; i < data.size; i++) {
        char two[2] = {digits[(unsigned char)data.data[i] >> 4], digits[data.data[i] & 15]};
        rl_put(out, (rl_text){two, 2});
    }
    RL_PUT(out, "\"");
}

static void put_member(rl_buffer *out, const char *before, const js_value *value) {
    size_t size = 0;
    while (before[size]) size++;
    rl_put(out, (rl_text){before, size});
    js_put(out, value);
}

static void put_refusal(rl_buffer *out, const rl_answer *answer) {
    RL_PUT(out, "{\"refused\":{\"code\":");
    js_put_string(out, answer->code);
    RL_PUT(out, ",\"message\":");
    js_put_string(out, answer->message);
    RL_PUT(out, ",\"hint\":");
    if (answer->hint.size)
        js_put_string(out, answer->hint);
    else
        RL_PUT(out, "null");
    rl_put(out, answer->retryable ? RL_TEXT(",\"retryable\":true}}") : RL_TEXT(",\"retryable\":false}}"));
}

static rl_answer ask_mail(const js_value *args) {
    rl_mail mail = {json(GET("to")), STR("subject"), STR("body"), json(GET("cc")), json(GET("bcc")),
                    STR("in_reply_to")};
    return rl_send_mail(&mail);
}

static rl_answer ask_model(const js_value *args) {
    rl_prompt prompt = {0};
    prompt.messages_json = json(GET("messages"));
    prompt.model = STR("model");
    prompt.max_tokens = whole(GET("max_tokens"), 0);
    prompt.temperature_json = json(GET("temperature"));
    prompt.json_schema_json = json(GET("json_schema"));
    prompt.template = STR("template");
    prompt.facts_json = json(GET("facts"));
    return rl_complete(&prompt);
}

static rl_answer ask_web(const js_value *args) {
    rl_request request = {STR("method"), STR("url"), json(GET("headers")), 0, {0}, whole(GET("max_bytes"), 0)};
    request.body = STR("text");
    request.has_body = GET("text") || (GET("base64") && rl_from_base64(STR("base64"), &request.body));
    return rl_fetch(&request);
}

static rl_answer ask_file(const js_value *args) {
    rl_text data = STR("text"), digest = STR("expected");
    if (GET("base64")) rl_from_base64(STR("base64"), &data);
    rl_fs_before before = !js_is(GET("expected"), JS_STRING) ? RL_FS_ANYTHING
                          : digest.size                      ? RL_FS_DIGEST
                                                             : RL_FS_NOTHING;
    return rl_fs_write(STR("path"), data, before, digest);
}

/* The helper's answer; `out` gets the outcome where the answer's value is not it. */
static rl_answer helper(rl_text op, const js_value *args, rl_buffer *out, rl_buffer *artifacts) {
    rl_answer made = {0};
    if (IS("time.now") || IS("memory.put")) {
        int64_t expected = whole(GET("expected_version"), -1);
        made = IS("time.now") ? rl_time_now() : rl_memory_put(STR("namespace"), STR("key"), json(GET("value")), expected);
        if (!made.refused) js_put_int(out, made.number);
    } else if (IS("random.bytes") || IS("blob.read")) {
        made = IS("random.bytes")
                   ? rl_random_bytes((size_t)whole(GET("n"), 0))
                   : rl_blob_read(STR("digest"), whole(GET("offset"), 0), whole(GET("length"), 0));
        if (!made.refused) RL_PUT(out, "{\"hex\":"), put_hex(out, made.bytes), RL_PUT(out, "}");
    } else if (IS("log.write") || IS("progress")) {
        made = IS("progress") ? rl_progress(STR("message"), json(GET("fraction")))
                              : rl_log(STR("level"), STR("message"), json(GET("fields")));
        if (!made.refused) RL_PUT(out, "null");
    } else if (IS("memory.get")) {
        made = rl_memory_get(STR("namespace"), STR("key"));
        if (!made.refused) {
            put_member(out, "{\"value\":", made.value);
            RL_PUT(out, ",\"version\":");
            js_put_int(out, made.number);
            RL_PUT(out, "}");
        }
    } else if (IS("artifact.put")) {
        rl_text data = STR("text");
        if (GET("base64") && rl_from_base64(STR("base64"), &data))
            made = rl_put_bytes(STR("name"), STR("media_type"), data);
        else
            made = rl_put_text(STR("name"), STR("media_type"), data);
        if (!made.refused) {
            if (artifacts->size) RL_PUT(artifacts, ",");
            js_put(artifacts, made.value);
        }
    } else if (IS("model.complete")) {
        made = ask_model(args);
        if (!made.refused) {
            put_member(out, "{\"text\":", js_get(made.value, RL_TEXT("text")));
            put_member(out, ",\"provider\":", js_get(made.value, RL_TEXT("provider")));
            put_member(out, ",\"model\":", js_get(made.value, RL_TEXT("model")));
            put_member(out, ",\"generated\":", js_get(made.value, RL_TEXT("generated")));
            put_member(out, ",\"finish\":", js_get(made.value, RL_TEXT("finish")));
            RL_PUT(out, "}");
        }
    } else if (IS("msg.next")) {
        made = rl_next_message(STR("stream"));
        if (!made.refused && !made.number) RL_PUT(out, "null");
    } else if (IS("http.fetch")) {
        made = ask_web(args);
        if (!made.refused) {
            RL_PUT(out, "{\"status\":");
            js_put_int(out, made.number);
            put_member(out, ",\"url\":", js_get(made.value, RL_TEXT("url")));
            put_member(out, ",\"headers\":", js_get(made.value, RL_TEXT("headers")));
            put_member(out, ",\"truncated\":", js_get(made.value, RL_TEXT("truncated")));
            RL_PUT(out, ",\"hex\":"), put_hex(out, made.bytes), RL_PUT(out, "}");
        }
    } else if (IS("fs.read")) {
        made = rl_fs_read(STR("path"), whole(GET("offset"), 0), whole(GET("length"), 0));
        if (!made.refused) RL_PUT(out, "{\"hex\":"), put_hex(out, made.bytes), RL_PUT(out, "}");
    } else if (IS("fs.write")) {
        made = ask_file(args);
    } else if (IS("fs.list")) {
        made = rl_fs_list(STR("path"), STR("after"), whole(GET("limit"), 0));
        if (!made.refused) {
            put_member(out, "{\"entries\":", made.value);
            rl_put(out, made.number ? RL_TEXT(",\"truncated\":true}") : RL_TEXT(",\"truncated\":false}"));
        }
    } else if (IS("fs.stat")) {
        made = rl_fs_stat(STR("path"), js_bool(GET("digest"), 0));
    } else if (IS("kb.search")) {
        made = rl_kb_search(STR("query"), whole(GET("k"), 8), json(GET("kinds")));
    } else if (IS("kb.query")) {
        made = rl_kb_query(STR("sql"), json(GET("params")), whole(GET("limit"), 200));
    } else if (IS("kb.read")) {
        made = rl_kb_read(STR("kind"), STR("id"));
    } else if (IS("kb.why")) {
        made = rl_kb_why(STR("ref"));
    } else if (IS("kb.propose")) {
        made = rl_kb_propose(STR("kind"), json(GET("payload")));
    } else if (IS("tool.list")) {
        made = rl_list_tools();
    } else if (IS("tool.call")) {
        made = rl_call_tool(STR("tool"), json(GET("args")));
    } else if (IS("mail.send")) {
        made = ask_mail(args);
    } else {
        made = rl_no(RL_TEXT("probe.unknown"), op);
    }
    return made;
}

/* Follows one command: writes its outcome, or gives the end of the attempt. */
static int follow(const rl_task *task, const js_value *args, rl_buffer *out, rl_buffer *artifacts, rl_result *end) {
    rl_text op = STR("do"), name = STR("name");
    if (IS("echo")) {
        js_put(out, GET("value"));
    } else if (IS("size")) {
        RL_PUT(out, "{\"characters\":");
        js_put_int(out, (int64_t)rl_length(STR("text")));
        RL_PUT(out, ",\"bytes\":");
        js_put_int(out, (int64_t)STR("text").size);
        RL_PUT(out, "}");
    } else if (IS("port") || IS("param")) {
        const js_value *found = IS("port") ? rl_port(task, name) : rl_param(task, name);
        if (!found) {
            *end = IS("port") ? rl_fail_missing(RL_TEXT("task.port"), RL_TEXT("nothing arrived on input port"), name)
                              : rl_fail_missing(RL_TEXT("task.with"), RL_TEXT("the opening does not give"), name);
            return 0;
        }
        js_put(out, found);
    } else if (IS("all")) {
        const js_value *found = js_get(task->ports, name);
        if (found)
            js_put(out, found);
        else
            RL_PUT(out, "[]");
    } else if (IS("context")) {
        js_put(out, task->context);
    } else if (IS("fail")) {
        *end = js_bool(GET("retryable"), 0) ? rl_fail_for_now(STR("code"), STR("message"))
                                            : rl_fail(STR("code"), STR("message"));
        return 0;
    } else if (IS("call") || IS("must") || IS("helper")) {
        size_t before = out->size;
        rl_answer made = IS("helper") ? helper(STR("op"), GET("args"), out, artifacts)
                                      : rl_ask(STR("op"), json(GET("args")));
        if (made.refused && IS("must")) {
            *end = rl_refused(&made);
            return 0;
        }
        if (made.refused)
            put_refusal(out, &made);
        else if (out->size == before)
            js_put(out, made.value);
    } else {
        *end = rl_fail(RL_TEXT("probe.unknown"), RL_TEXT("there is no such command"));
        return 0;
    }
    return 1;
}

static rl_result handle(const rl_task *task) {
    rl_buffer out = {0}, artifacts = {0}, listed = {0};
    rl_result end;
    const js_value *commands = js_get(task->ports, RL_TEXT("in"));
    RL_PUT(&out, "{\"out\":[");
    for (const js_value *command = commands ? commands->first : NULL; command; command = command->next) {
        if (command != commands->first) RL_PUT(&out, ",");
        if (!follow(task, command, &out, &artifacts, &end)) return end;
    }
    RL_PUT(&out, "]}");
    RL_PUT(&listed, "[");
    rl_put(&listed, rl_made(&artifacts));
    RL_PUT(&listed, "]");
    return rl_output_all(rl_made(&out), rl_made(&listed));
}

RL_AGENT_WITH_TOOLS(handle, TOOLS)
