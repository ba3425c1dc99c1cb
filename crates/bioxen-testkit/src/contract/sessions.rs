//! Input line by line, as in a terminal.

use bioxen::{EndedBy, Value};

use super::{Subject, finished, text};

pub async fn a_session_shares_the_state_of_its_vm(subject: &Subject) {
    let vm = subject.vm().await;
    let session = vm.session();
    finished(session.evaluate("x = 20").await);
    assert_eq!(finished(session.evaluate("x + 1").await).value(), &Value::Integer(21));
    assert_eq!(finished(vm.eval("x").await).value(), &Value::Integer(20));
    assert_eq!(finished(vm.session().evaluate("x").await).value(), &Value::Integer(20));
    assert_eq!(session.vm().name(), vm.name());
}

pub async fn input_that_wants_more_lines_says_so_and_runs_nothing(subject: &Subject) {
    let vm = subject.vm().await;
    let session = vm.session();
    let begun = [
        "for i = 1, 3 do",
        "function f()",
        "print(",
        "x = [[text",
        "if true then print('ran')",
        "t = {1,",
        "x = 1 +",
        "--[[ a comment",
        "repeat print('ran')",
        "return",
        "print('ran') do",
    ];
    for input in begun {
        let run = session.evaluate(input).await.expect("it is looked at");
        // `return` alone is complete.
        assert_eq!(run.incomplete, input != "return", "{input}");
        assert_eq!(run.text(), "", "{input}");
    }
    let whole = "for i = 1, 3 do\nio.write(i)\nend";
    let run = finished(session.evaluate(whole).await);
    assert!(!run.incomplete);
    assert_eq!(run.text(), "123");
}

pub async fn input_that_no_line_can_mend_is_an_error(subject: &Subject) {
    let vm = subject.vm().await;
    for input in ["for = 1", "x = = 1", "end", "1 +* 2", "'not closed\n", "x y"] {
        let run = vm.session().evaluate(input).await.expect("it is looked at");
        assert!(!run.incomplete, "{input}");
        assert_eq!(run.record.ending.ended_by, EndedBy::Error, "{input}");
    }
}

pub async fn each_input_has_its_own_output_and_values(subject: &Subject) {
    let vm = subject.vm().await;
    let session = vm.session();
    for number in 1..=20 {
        let run = finished(session.evaluate(&format!("print({number}) return {number}")).await);
        assert_eq!(run.text(), format!("{number}\n"));
        assert_eq!(run.value(), &Value::Integer(number));
    }
    let run = finished(session.evaluate("print('a'), 'b'").await);
    assert_eq!(
        (run.text().as_ref(), &run.record.values[..]),
        ("a\n", &[Value::Nil, text("b")][..])
    );
    let lines = finished(session.evaluate("x =\n\n5 return\nx").await);
    assert_eq!(lines.value(), &Value::Integer(5));
}
