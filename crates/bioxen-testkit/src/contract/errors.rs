//! Errors and exits.

use bioxen::{EndedBy, Run, Script, Value};

use super::{Subject, ended, failed, finished, text};

pub async fn an_error_has_its_message_place_and_traceback(subject: &Subject) {
    let vm = subject.vm().await;
    let code =
        "local function inner()\n  error('boom')\nend\nfunction outer() inner() end\nouter()";
    let run = ended(vm.run(Script::code("script.lua", code)).await, EndedBy::Error);
    let error = run.record.error.expect("there is one");
    assert_eq!(error.message, "script.lua:2: boom");
    let traceback = error.traceback.expect("there is one");
    assert!(traceback.starts_with("stack traceback:"), "{traceback}");
    for line in ["script.lua:2:", "script.lua:4:", "script.lua:5:"] {
        assert!(traceback.contains(line), "{line} is not in {traceback}");
    }
    assert_eq!(error.value, None);
    assert_eq!(run.record.ending.exit_code, 1);
}

pub async fn errors_of_the_interpreter_are_told_as_it_words_them(subject: &Subject) {
    let vm = subject.vm().await;
    assert!(failed(vm.eval("local x = nil; return x.y").await).contains("attempt to index"));
    assert!(failed(vm.eval("nothing()").await).contains("attempt to call"));
    assert!(failed(vm.eval("('x'):rep({})").await).contains("bad argument #"));
    assert!(failed(vm.eval("error('no place', 0)").await) == "no place");
}

pub async fn error_values_of_any_type_arrive(subject: &Subject) {
    let vm = subject.vm().await;
    let error = async |code: &str| {
        let run = ended(vm.eval(code.to_owned()).await, EndedBy::Error);
        run.record.error.expect("there is one")
    };
    let table = error("error({code = 7})").await;
    assert_eq!(table.value, Some(Value::Map(vec![(text("code"), Value::Integer(7))])));
    assert!(!table.message.is_empty());
    let described =
        error("error(setmetatable({}, {__tostring = function() return 'me' end}))").await;
    assert_eq!(described.message, "me");
    let number = error("error(42, 0)").await;
    assert_eq!((number.message.as_str(), number.value), ("42", Some(Value::Integer(42))));
    let boolean = error("error(false)").await;
    assert_eq!(boolean.value, Some(Value::Boolean(false)));
    let nothing = error("error(nil)").await;
    assert!(!nothing.message.is_empty());
    let binary = error("error('\\0\\255 bytes', 0)").await;
    assert!(binary.message.ends_with(" bytes"), "{:?}", binary.message);
}

pub async fn an_error_that_cannot_be_shown_is_still_an_error(subject: &Subject) {
    let vm = subject.vm().await;
    for bad in
        ["error('inner')", "return 5", "return nil", "error({})", "return setmetatable({}, {})"]
    {
        let code = format!("error(setmetatable({{}}, {{__tostring = function() {bad} end}}))");
        assert!(!failed(vm.eval(code).await).is_empty(), "{bad}");
    }
    let recursive = "local mt = {} mt.__tostring = tostring error(setmetatable({}, mt))";
    failed(vm.eval(recursive).await);
    assert_eq!(finished(vm.eval("1").await).value(), &Value::Integer(1));
}

pub async fn a_stack_overflow_is_an_error(subject: &Subject) {
    let vm = subject.vm().await;
    let message = failed(vm.eval("local function f() return 1 + f() end return f()").await);
    assert!(message.contains("stack overflow"), "{message}");
    failed(
        vm.eval(
            "local t = setmetatable({}, {}) getmetatable(t).__index = function(_, k) \
                    return t[k] end return t.x",
        )
        .await,
    );
    assert_eq!(finished(vm.eval("1").await).value(), &Value::Integer(1));
}

pub async fn an_error_inside_a_coroutine_ends_the_run(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "coroutine.wrap(function() error('from inside') end)()";
    assert!(failed(vm.eval(code).await).contains("from inside"));
    let caught = "coroutine.resume(coroutine.create(function() error('caught', 0) end))";
    let run = finished(vm.eval(caught).await);
    assert_eq!(run.record.values, [Value::Boolean(false), text("caught")]);
}

pub async fn errors_that_are_caught_end_nothing(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "local t = {pcall(error, {1})} \
                local u = {xpcall(function() error('x', 0) end, function(m) return m .. '!' end)} \
                return t[1], t[2][1], u[1], u[2]";
    let run = finished(vm.eval(code).await);
    let (no, one) = (Value::Boolean(false), Value::Integer(1));
    assert_eq!(run.record.values, [no.clone(), one, no, text("x!")]);
}

pub async fn os_exit_ends_the_run_with_its_code_and_not_the_vm(subject: &Subject) {
    let vm = subject.vm().await;
    finished(vm.eval("x = 'kept'").await);
    let codes =
        [("", 0), ("0", 0), ("3", 3), ("true", 0), ("false", 1), ("255", 255), ("256 + 7", 7)];
    for (argument, code) in codes {
        let script = Script::code("s", format!("os.exit({argument}) print('not reached')"));
        let run = finished(vm.run(script).await);
        let seen = (run.record.ending.exit_code & 0xff, run.text().into_owned());
        assert_eq!(seen, (code, String::new()), "{argument}");
        assert!(run.record.ending.state_kept);
        assert!(run.record.values.is_empty() && run.record.error.is_none());
    }
    assert_eq!(finished(vm.eval("x").await).value(), &text("kept"));
}

pub async fn nothing_catches_os_exit(subject: &Subject) {
    let vm = subject.vm().await;
    let exits = [
        "pcall(os.exit, 5)",
        "xpcall(function() os.exit(5) end, print)",
        "coroutine.wrap(function() pcall(function() os.exit(5) end) end)()",
        "pcall(pcall, pcall, os.exit, 5)",
        "table.sort({3, 2, 1}, function() os.exit(5) end)",
        "('x'):gsub('x', function() os.exit(5) end)",
        "local _ = setmetatable({}, {__index = function() os.exit(5) end}).x",
    ];
    for code in exits {
        let script = Script::code("s", format!("{code} while true do print('on') end"));
        let run: Run = finished(vm.run(script).await);
        assert_eq!((run.record.ending.exit_code, run.text().as_ref()), (5, ""), "{code}");
    }
    assert_eq!(finished(vm.eval("1").await).value(), &Value::Integer(1));
}
