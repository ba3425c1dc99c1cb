//! What code returns, as data.

use bioxen::{EndedBy, Limits, Value};
use bioxen_core::ByteSize;

use super::{Subject, ended, finished, text};

pub async fn an_expression_gives_its_values(subject: &Subject) {
    let vm = subject.vm().await;
    let run = finished(vm.eval("1 + 1, 'a', nil, true, nil").await);
    let expected = [Value::Integer(2), text("a"), Value::Nil, Value::Boolean(true), Value::Nil];
    assert_eq!(run.record.values, expected);
}

pub async fn statements_give_what_they_return(subject: &Subject) {
    let vm = subject.vm().await;
    assert_eq!(finished(vm.eval("local x = 5 return x, x * 2").await).record.values.len(), 2);
    assert_eq!(finished(vm.eval("local x = 5").await).record.values, []);
    assert_eq!(finished(vm.eval("").await).record.values, []);
    assert_eq!(finished(vm.eval("-- nothing but a comment").await).record.values, []);
    assert_eq!(finished(vm.eval("return").await).record.values, []);
}

pub async fn floats_arrive_exactly(subject: &Subject) {
    let vm = subject.vm().await;
    let run = finished(vm.eval("0.1, 1e308, 5e-324, -1.5, 2^-1074, 1/3").await);
    let expected = [0.1, 1e308, 5e-324, -1.5, 5e-324, 1.0 / 3.0];
    assert_eq!(run.record.values, expected.map(Value::Float));
    let run = finished(vm.eval("local z = 0.0 return 1/z, -1/z, z/z, -z").await);
    let [Value::Float(inf), Value::Float(minus), Value::Float(nan), Value::Float(zero)] =
        run.record.values[..]
    else {
        panic!("{:?}", run.record.values);
    };
    assert!(inf.is_infinite() && inf > 0.0 && minus.is_infinite() && minus < 0.0);
    assert!(nan.is_nan());
    assert!(zero == 0.0 && zero.is_sign_negative());
}

pub async fn integers_arrive_exactly(subject: &Subject) {
    let vm = subject.vm().await;
    let run = finished(vm.eval("0, -1, 127, 128, -129, 65536, 4294967296, 9007199254740991").await);
    let expected = [0, -1, 127, 128, -129, 65536, 1 << 32, (1 << 53) - 1];
    assert_eq!(run.record.values, expected.map(Value::Integer));
    if subject.traits.has_integers {
        let run = finished(vm.eval("math.maxinteger, math.mininteger, 2.0, 2^53").await);
        let whole = [Value::Float(2.0), Value::Float(9_007_199_254_740_992.0)];
        assert_eq!(run.record.values[..2], [i64::MAX, i64::MIN].map(Value::Integer));
        assert_eq!(run.record.values[2..], whole);
    } else {
        let run = finished(vm.eval("2.0, 2^60").await);
        assert_eq!(run.record.values[0], Value::Integer(2));
        assert_eq!(run.record.values[1].as_f64(), Some(2.0_f64.powi(60)));
    }
}

pub async fn strings_are_any_bytes(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "local t = {} for i = 0, 255 do t[#t + 1] = string.char(i) end \
                return table.concat(t), '', '\\0', 'gr\\195\\188n', ('x'):rep(70000)";
    let run = finished(vm.eval(code).await);
    let all: Vec<u8> = (0..=255).collect();
    let expected = [text(all), text(""), text("\0"), text("grün"), text("x".repeat(70_000))];
    assert_eq!(run.record.values, expected);
}

pub async fn tables_are_arrays_or_maps(subject: &Subject) {
    let vm = subject.vm().await;
    let run = finished(vm.eval("{}, {1, 2, {3}}, {b = 1, a = {x = 'y'}}, {[2] = 'two'}").await);
    let one = Value::Integer(1);
    let expected = [
        Value::Array(vec![]),
        Value::Array(vec![one.clone(), Value::Integer(2), Value::Array(vec![Value::Integer(3)])]),
        Value::Map(vec![(text("a"), Value::Map(vec![(text("x"), text("y"))])), (text("b"), one)]),
        Value::Map(vec![(Value::Integer(2), text("two"))]),
    ];
    assert_eq!(run.record.values, expected);
}

pub async fn entries_of_a_map_are_ordered_by_their_keys(subject: &Subject) {
    let vm = subject.vm().await;
    let run = finished(vm.eval("{z = 1, [10] = 1, a = 1, [-3] = 1, [2.5] = 1, B = 1}").await);
    let Value::Map(entries) = run.value() else { panic!("{}", run.value()) };
    let keys: Vec<&Value> = entries.iter().map(|(key, _)| key).collect();
    let (low, middle, high) = (Value::Integer(-3), Value::Float(2.5), Value::Integer(10));
    assert_eq!(keys, [&low, &middle, &high, &text("B"), &text("a"), &text("z")]);
}

pub async fn what_is_no_data_is_named_by_its_type(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "print, function() end, coroutine.create(print), io.stdout, {f = print}";
    let run = finished(vm.eval(code).await);
    let kinds = ["function: ", "function: ", "thread: ", "userdata: "];
    for (value, kind) in run.record.values.iter().zip(kinds) {
        let Value::Other(described) = value else { panic!("{value}") };
        assert!(described.starts_with(kind), "{described}");
    }
    let inner = run.record.values[4].field("f");
    assert!(matches!(inner, Some(Value::Other(_))), "{inner:?}");
}

pub async fn a_table_inside_itself_is_named_and_not_followed(subject: &Subject) {
    let vm = subject.vm().await;
    let run = finished(vm.eval("local t = {name = 'loop'} t.t = t t.deep = {t} return t").await);
    assert_eq!(run.value().field("name"), Some(&text("loop")));
    let Some(Value::Other(itself)) = run.value().field("t") else { panic!("{}", run.value()) };
    assert!(itself.starts_with("table: "), "{itself}");
    let run = finished(vm.eval("local shared = {1} return {shared, shared}").await);
    let one = Value::Array(vec![Value::Integer(1)]);
    assert_eq!(run.value(), &Value::Array(vec![one.clone(), one]), "twice is not inside itself");
}

pub async fn tables_that_are_nested_too_deep_are_named(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "local t = {} for _ = 1, 10000 do t = {t} end return t, 'after'";
    let run = finished(vm.eval(code).await);
    let mut value = run.value();
    let mut depth = 0;
    while let Value::Array(items) = value {
        value = &items[0];
        depth += 1;
    }
    assert!(matches!(value, Value::Other(_)) && depth >= 16, "{depth} levels, then {value}");
    assert_eq!(run.record.values[1], text("after"));
}

pub async fn values_are_read_without_calling_metamethods(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "local bad = function() error('called') end \
                return setmetatable({a = 1}, {__index = bad, __pairs = bad, __tostring = bad, \
                __len = bad, __eq = bad, __metatable = 'hidden'})";
    let run = finished(vm.eval(code).await);
    assert_eq!(run.value(), &Value::Map(vec![(text("a"), Value::Integer(1))]));
}

pub async fn values_that_are_too_large_end_the_run_by_its_output_limit(subject: &Subject) {
    let output = ByteSize::kib(64).into();
    let vm = subject.vm_with(|s| s.limits(Limits { output, ..Limits::default() })).await;
    for code in ["('x'):rep(100000)", "local t = {} for i = 1, 50000 do t[i] = i end return t"] {
        let run = ended(vm.eval(code).await, EndedBy::Output);
        assert!(run.record.values.is_empty());
        assert!(run.record.ending.state_kept);
    }
    assert_eq!(finished(vm.eval("1").await).value(), &Value::Integer(1));
}
