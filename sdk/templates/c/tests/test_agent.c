/* Runs on your own machine, without daemon and sandbox: 'rlp agent test'. */
#include "../agent.c"

#include "runloop_test.h"

int main(void) {
    rl_test("words of another script", "{\"ports\":{\"text\":[\"γιάννης ok\"]}}",
            "{\"ports\":{\"out\":[{\"words\":2,\"sentences\":1,\"longest\":2}]}}");
    rl_test("no text anywhere", "{}", "{\"error\":\"task.with\"}");
    rl_script_refusal("log.write", "{\"code\":\"cap.denied\",\"message\":\"no lines today\"}");
    rl_test("a closed log", "{\"ports\":{\"text\":[\"One.\"]}}", "{\"ports\":{\"out\":[{\"words\":1}]}}");
    return rl_run_cases(); /* of cases.toml */
}
