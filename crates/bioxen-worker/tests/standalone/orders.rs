//! What is accepted, and what is said to the rest.

use std::path::Path;

use bioxen::{Grants, Interpreter, Mechanism, Value};
use bioxen_core::protocol::standalone::{Answer, Opening, Refusal};
use bioxen_core::protocol::{VERSION, encode};
use bioxen_testkit::{Scratch, Wire};

use crate::guest::{Guest, order, order_on};

#[test]
fn an_order_is_accepted_with_paths_that_are_absolute_and_free_of_links() {
    let scratch = Scratch::new();
    scratch.file("real/data.txt", "data");
    scratch.link("data", scratch.at("real"));
    let mut guest = Guest::start(Wire::Pipes);
    let grants = Grants::none().read("data/data.txt").write("new.txt").env("GIVEN");
    let order = order(|spec| spec.grants(grants).working_directory(scratch.path()));
    let (accepted, isolation, hello) = guest.accepted(&order);
    assert_eq!(accepted.working_directory, scratch.path());
    assert!(accepted.grants.read.contains(&scratch.at("real/data.txt")), "{accepted:?}");
    assert!(accepted.grants.write.contains(&scratch.at("new.txt")), "{accepted:?}");
    assert_eq!(std::fs::read(scratch.at("new.txt")).unwrap(), b"", "it was made");
    assert!(hello.interpreter.starts_with("Lua 5.4") && accepted.program.is_none());
    assert_eq!(hello.platform, accepted.platform);
    assert!(isolation.active.contains(&Mechanism::Process), "{isolation:?}");
    let end = guest.evaluate("return io.open('real/data.txt'):read('a')");
    assert_eq!(end.values, [Value::String(b"data".to_vec())]);
}

#[test]
fn another_interpreter_is_found_by_its_name_and_says_what_it_is() {
    if order_on("lua5.1", |spec| spec).is_none() {
        return;
    }
    let mut guest = Guest::start(Wire::Socket);
    let order = order(|spec| spec.interpreter(Interpreter::Program("lua5.1".into())));
    let (accepted, _, _) = guest.accepted(&order);
    let program = accepted.program.expect("it is a program");
    assert!(program.path.is_absolute() && program.version.starts_with("Lua 5.1."), "{program:?}");
    assert_eq!(guest.evaluate("return 6 * 7").values, [Value::Integer(42)]);
}

#[test]
fn garbage_in_place_of_an_order_is_refused_by_what_was_seen() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x03abc", b"\0\0\0\0"] {
        let mut guest = Guest::start(Wire::Pipes);
        guest.send(garbage);
        let Answer::Refused(refusal) = guest.answer() else {
            panic!("{garbage:?} was accepted");
        };
        assert!(matches!(refusal, Refusal::NoOrder { .. }), "{refusal}");
        let (status, said) = guest.wait();
        assert_eq!(status.code(), Some(1));
        assert!(said.contains("it was sent no order"), "{said}");
    }
}

#[test]
fn an_order_that_breaks_off_is_refused() {
    let mut guest = Guest::start(Wire::Pipes);
    let frame = encode(&Opening::Order(order(|spec| spec)));
    guest.send(&frame[..frame.len() - 1]);
    guest.stop_writing();
    let Answer::Refused(refusal) = guest.answer() else {
        panic!("it was accepted");
    };
    assert!(refusal.to_string().contains("the connection ended after"), "{refusal}");
    assert_eq!(guest.wait().0.code(), Some(1));
}

#[test]
fn an_order_of_a_newer_version_is_refused_by_both_versions() {
    let mut newer = order(|spec| spec);
    newer.version += 1;
    let refusal = Guest::start(Wire::Socket).refused(&newer);
    assert_eq!(refusal, Refusal::Version { worker: VERSION, controller: VERSION + 1 });
}

#[test]
fn a_path_that_is_not_there_is_refused_by_its_name() {
    let scratch = Scratch::new();
    let missing = scratch.at("missing");
    let orders = [
        order(|spec| spec.grants(Grants::none().read(&missing))),
        order(|spec| spec.grants(Grants::none().write(missing.join("deeper")))),
        order(|spec| spec.working_directory(&missing)),
    ];
    for order in orders {
        let refusal = Guest::start(Wire::Pipes).refused(&order);
        let Refusal::Path { path, code: Some(2), .. } = &refusal else { panic!("{refusal}") };
        assert!(Path::new(path).starts_with(&missing), "{refusal}");
    }
}

#[test]
fn an_interpreter_that_is_none_or_not_there_is_refused() {
    for (name, said) in [("no-such-lua", "no such program"), ("/bin/cat", "does not answer")] {
        let order = order(|spec| spec.interpreter(Interpreter::Program(name.into())));
        let refusal = Guest::start(Wire::Pipes).refused(&order);
        let Refusal::Interpreter { program, reason } = &refusal else { panic!("{refusal}") };
        assert!(program == name && reason.contains(said), "{refusal}");
    }
}

#[test]
fn a_controller_that_goes_without_a_word_is_no_failure() {
    let mut guest = Guest::start(Wire::Pipes);
    guest.hang_up();
    let (status, said) = guest.wait();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}
