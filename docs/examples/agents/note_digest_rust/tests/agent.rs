use agent::runloop_agent;
use runloop::testing::{run_cases, FakeHost};
use runloop::{list, object};

#[test]
fn the_page_names_its_sources_and_is_cut_at_a_word() {
    let host = FakeHost::new()
        .answer(
            "kb.search",
            object! { "items": list![object! { "id": "d1", "title": "Two\nlines" }] },
        )
        .answer(
            "kb.read",
            object! { "item": object! { "body": "wörd ".repeat(100) } },
        )
        .answer("artifact.put", object! { "digest": "d".repeat(64) });
    let input = object! { "ports": object! { "topic": list!["plan"] } };
    let output = runloop_agent().run(input, &host).unwrap();
    let page = host.made("artifact.put")[0]["text"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        page.contains("## Two lines\n") && page.contains("Source: d1\n"),
        "{}",
        page
    );
    assert!(page.contains("wörd…"), "{}", page);
    assert_eq!(output["artifacts"], list!["d".repeat(64)]);
}

#[test]
fn every_case_of_cases_toml_holds() {
    run_cases(&runloop_agent());
}
