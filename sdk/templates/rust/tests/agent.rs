//! Runs on your own machine, without daemon and sandbox: 'rlp agent test'.

use agent::runloop_agent;
use runloop::object;
use runloop::testing::{run_cases, FakeHost};

#[test]
fn it_tells_the_log_what_it_measured() {
    let host = FakeHost::new();
    let input = object! { "ports": object! { "text": vec!["One two."] } };
    let output = runloop_agent().run(input, &host).unwrap();
    assert_eq!(output["ports"]["out"][0]["words"], 2.into());
    assert_eq!(
        host.made("log.write")[0]["message"],
        "measured 2 words".into()
    );
}

#[test]
fn text_that_is_no_text_fails_in_words() {
    let input = object! { "ports": object! { "text": vec![17] } };
    let failure = runloop_agent().run(input, &FakeHost::new()).unwrap_err();
    assert_eq!(failure.code, "task.port");
}

#[test]
fn every_case_of_cases_toml_holds() {
    run_cases(&runloop_agent());
}
