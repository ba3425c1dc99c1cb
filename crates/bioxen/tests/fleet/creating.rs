//! Making VMs: names, types, and failures that leave nothing.

use std::error::Error as _;
use std::time::Duration;

use bioxen::backend::StartError;
use bioxen::{
    CreateError, Fleet, Grants, Interpreter, Mechanism, StartVmError, VmName, VmSpec, VmType,
};
use bioxen_testkit::{Process, block_on, eventually, fleet, in_own_process};
use futures::future::join_all;

use crate::common::{check_works, create, names, spec};

fn start_error(error: CreateError) -> StartError {
    match error {
        CreateError::Start(StartVmError::Start { source, .. }) => source,
        other => panic!("{other}"),
    }
}

#[test]
fn a_vm_is_found_under_its_name() {
    block_on(async {
        let fleet = fleet();
        let vm = create(&fleet, "one").await;
        create(&fleet, "two").await;
        assert_eq!(fleet.vm("one").unwrap().name(), vm.name());
        assert!(fleet.find_vm("three").is_none() && fleet.find_vm("NOT A NAME").is_none());
        assert_eq!(names(&fleet), ["one", "two"]);
        let error = fleet.vm("three").unwrap_err().to_string();
        assert_eq!(error, "there is no vm `three`; there are `one`, `two`");
    });
}

#[test]
fn a_name_is_valid_or_there_is_no_order() {
    for bad in ["", "9", "UPPER", "a b", "../a", "a\0b", "ü", &"a".repeat(64)] {
        let error = VmSpec::basic(bad).unwrap_err().to_string();
        assert!(error.contains("is not a VM name"), "{error}");
    }
}

#[test]
fn a_name_belongs_to_one_vm() {
    block_on(async {
        let fleet = fleet();
        let first = create(&fleet, "one").await;
        let error = fleet.create(spec("one")).await.unwrap_err();
        assert!(matches!(&error, CreateError::Duplicate { vm } if vm.as_str() == "one"), "{error}");
        assert_eq!(error.to_string(), "vm `one` exists already");
        assert!(error.hint().unwrap().contains("remove `one`"));
        check_works(&first).await;
        fleet.remove("one").await.unwrap();
        create(&fleet, "one").await;
    });
}

#[test]
fn of_many_that_want_the_same_name_at_once_exactly_one_gets_it() {
    block_on(async {
        let fleet = fleet();
        let attempts = (0..30).map(|_| {
            let fleet = fleet.clone();
            tokio::spawn(async move { fleet.create(spec("wanted")).await })
        });
        let outcomes = join_all(attempts).await;
        let mut winners = Vec::new();
        for outcome in outcomes {
            match outcome.unwrap() {
                Ok(vm) => winners.push(vm),
                Err(error) => assert!(matches!(error, CreateError::Duplicate { .. }), "{error}"),
            }
        }
        assert_eq!(winners.len(), 1);
        check_works(&winners[0]).await;
    });
}

#[test]
fn a_type_that_is_not_built_in_is_refused_with_those_that_are() {
    block_on(async {
        let fleet = fleet();
        let order = VmSpec::new(VmName::new("big").unwrap(), VmType::Xcpng);
        let error = fleet.create(order).await.unwrap_err();
        assert!(matches!(&error, CreateError::NotBuiltIn { known, .. } if known == "basic"));
        let text = error.to_string();
        assert!(text.contains("`xcpng`") && text.contains("not built in"), "{text}");
        assert!(error.hint().unwrap().contains("basic"));
        assert_eq!(names(&fleet), [""; 0]);
        create(&fleet, "big").await;
    });
}

#[test]
fn what_cannot_be_created_is_not_there_and_its_name_is_free() {
    block_on(async {
        let fleet = fleet();
        let missing_program = Interpreter::Program("/no/such/lua".into());
        let not_lua = Interpreter::Program("/bin/true".into());
        let orders = [
            spec("vm").interpreter(missing_program),
            spec("vm").interpreter(not_lua),
            spec("vm").grants(Grants::none().read("/no/such/path")),
            spec("vm").grants(Grants::none().write("/no/such/directory/file")),
            spec("vm").working_directory("/no/such/directory"),
            spec("vm").require(Mechanism::Cgroup),
        ];
        for order in orders {
            let shown = format!("{order:?}");
            let error = fleet.create(order).await.unwrap_err();
            assert!(error.hint().is_some(), "{error}");
            assert_eq!(names(&fleet), [""; 0], "{shown}");
            assert_eq!(fleet.stats().vms, 0, "{shown}");
        }
        check_works(&create(&fleet, "vm").await).await;
    });
}

#[test]
fn each_reason_for_failing_has_its_type_and_names_its_object() {
    block_on(async {
        let fleet = fleet();
        let order = spec("vm").interpreter(Interpreter::Program("no-such-lua".into()));
        let error = start_error(fleet.create(order).await.unwrap_err());
        assert!(matches!(error, StartError::Interpreter { .. }), "{error}");
        assert!(error.to_string().contains("`no-such-lua`"), "{error}");

        let order = spec("vm").interpreter(Interpreter::Program("/bin/echo".into()));
        let error = start_error(fleet.create(order).await.unwrap_err());
        assert!(error.to_string().contains("does not answer `-v` as Lua does"), "{error}");

        let order = spec("vm").grants(Grants::none().read("/no/such/path"));
        let error = start_error(fleet.create(order).await.unwrap_err());
        assert!(matches!(error, StartError::Path { .. }) && error.source().is_some(), "{error}");
        assert!(error.to_string().contains("`/no/such/path`"), "{error}");

        let order = spec("vm").require(Mechanism::Cgroup).require(Mechanism::Process);
        let error = start_error(fleet.create(order).await.unwrap_err());
        assert!(matches!(error, StartError::Isolation { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("cgroup is missing (") && !text.contains("process is"), "{text}");
    });
}

#[test]
fn a_demand_that_is_met_is_no_hindrance() {
    block_on(async {
        let fleet = fleet();
        let vm = create(&fleet, "asks").await;
        let reached = vm.info().isolation.unwrap().active;
        let order = reached.iter().fold(spec("demands"), |order, reached| order.require(*reached));
        check_works(&fleet.create(order).await.unwrap()).await;
    });
}

#[test]
fn giving_up_a_creation_frees_the_name_and_leaves_no_process() {
    in_own_process(|| {
        block_on(async {
            let fleet = fleet();
            check_works(&create(&fleet, "other").await).await;
            let before = Process::current().descendants().len();
            for patience in [0, 50, 100, 200, 400, 800, 1600] {
                let patience = Duration::from_micros(patience);
                match tokio::time::timeout(patience, fleet.create(spec("vm"))).await {
                    Err(_) => assert!(fleet.find_vm("vm").is_none()),
                    Ok(created) => {
                        created.unwrap();
                        fleet.remove("vm").await.unwrap();
                    }
                }
                eventually("nothing is left of it", || {
                    Process::current().descendants().len() == before
                })
                .await;
            }
            check_works(&create(&fleet, "vm").await).await;
        });
    });
}

#[test]
fn nothing_is_started_before_it_is_needed() {
    in_own_process(|| {
        block_on(async {
            let fleet = Fleet::builder().worker_program("/no/such/program").build();
            assert!(fleet.vms().is_empty());
            assert_eq!(Process::current().descendants(), []);
            fleet.shutdown().await.unwrap();
        });
    });
}

#[test]
fn two_hundred_vms_live_in_one_fleet() {
    block_on(async {
        let fleet = fleet();
        let created = join_all((0..200).map(|n| fleet.create(spec(&format!("vm-{n:03}"))))).await;
        let vms: Vec<_> = created.into_iter().map(Result::unwrap).collect();
        let runs = vms.iter().zip(1_i64..).map(|(vm, n)| vm.eval(format!("{n} * 2")).into_future());
        let total: i64 = join_all(runs)
            .await
            .into_iter()
            .map(|run| run.unwrap().value().as_i64().unwrap())
            .sum();
        assert_eq!(total, 200 * 201);
        assert_eq!(fleet.stats().by_state["running"], 200);
        fleet.shutdown().await.unwrap();
        assert_eq!(fleet.stats().vms, 0);
    });
}

#[test]
fn standby_workers_are_used_and_replaced() {
    block_on(async {
        let fleet =
            Fleet::builder().worker_program(bioxen_testkit::worker_program()).standby(3).build();
        let vms: Vec<_> = join_all((0..10).map(|n| fleet.create(spec(&format!("vm-{n}"))))).await;
        for vm in vms {
            check_works(&vm.unwrap()).await;
        }
        // A worker that stood by knows nothing of the VM that it becomes, so this must be told to it.
        let small =
            bioxen::Limits { memory: bioxen::ByteSize::mib(8).into(), ..bioxen::Limits::default() };
        let vm = fleet.create(spec("small").limits(small)).await.unwrap();
        let run = vm.eval("return ('x'):rep(20 * 1024 * 1024)").await.unwrap();
        assert_eq!(run.record.ending.ended_by, bioxen::EndedBy::Memory);
    });
}
