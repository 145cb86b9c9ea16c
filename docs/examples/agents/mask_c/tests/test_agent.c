#include "../mask.c"

#include "runloop_test.h"

int main(void) {
    rl_test("an address at the end of a sentence", "{\"ports\":{\"text\":[\"Write to ann@x.example. Now.\"]}}",
            "{\"ports\":{\"text\":[\"Write to [address]. Now.\"],\"report\":[{\"addresses\":1,\"numbers\":0}]}}");
    rl_test("a sign is no address", "{\"ports\":{\"text\":[\"@ a@ @b\"]}}", "{\"ports\":{\"text\":[\"@ a@ @b\"]}}");
    rl_test("no text", "{}", "{\"error\":\"task.port\"}");
    rl_script_refusal("progress", "{\"code\":\"cap.denied\",\"message\":\"no\"}");
    rl_test("nobody watches", "{\"ports\":{\"text\":[\"\"]}}", "{\"ports\":{\"text\":[\"\"]}}");
    rl_script_anew();
    return rl_run_cases();
}
