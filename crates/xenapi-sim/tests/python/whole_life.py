"""A VM's whole life against a pool, by the Python client `XenAPI` from PyPI.

Usage: whole_life.py URL PASSWORD

Prints one line for each step and ends with 0 when all held.
"""

import socket
import ssl
import sys
import urllib.parse

import XenAPI

GIB = 1 << 30
MIB = 1 << 20
NULL = "OpaqueRef:NULL"


def fails(code, call, *arguments):
    """The parameters of the error `code`, with which the call must fail."""
    try:
        answer = call(*arguments)
    except XenAPI.Failure as failure:
        assert failure.details[0] == code, (failure.details, "expected", code)
        return failure.details[1:]
    raise AssertionError(f"{code} was expected, and the answer was {answer!r}")


def wait_for(session, vm, fits, timeout=20.0):
    """Follows events until the VM's record, with its guest's metrics, fits."""
    api = session.xenapi
    token = ""
    for _ in range(100):
        batch = api.event_from(["vm/" + vm, "vm_guest_metrics"], token, timeout)
        token = batch["token"]
        assert all(isinstance(count, int) for count in batch["valid_ref_counts"].values())
        for event in batch["events"]:
            assert event["operation"] in ("add", "mod", "del"), event
        record = api.VM.get_record(vm)
        metrics = record["guest_metrics"]
        guest = api.VM_guest_metrics.get_record(metrics) if metrics != NULL else None
        if fits(record, guest):
            return record, guest
    raise AssertionError("the VM never became what was waited for")


def wait_for_task(session, task, timeout=20.0):
    api = session.xenapi
    token = ""
    while api.task.get_status(task) == "pending":
        token = api.event_from(["task/" + task], token, timeout)["token"]
    record = api.task.get_record(task)
    api.task.destroy(task)
    return record


def http(url, verb, path, query, body=b""):
    """Sends a request and answers the status with the body, which ends with the connection."""
    where = urllib.parse.urlsplit(url)
    stream = socket.create_connection((where.hostname, where.port), timeout=30)
    if where.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        stream = context.wrap_socket(stream)
    with stream:
        target = path + "?" + urllib.parse.urlencode(query)
        head = f"{verb} {target} HTTP/1.1\r\nHost: pool\r\nConnection: close\r\n"
        # The answer to an upload comes before its end: it is read after all was sent.
        stream.sendall((head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
        answer = b""
        while piece := stream.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def step(text):
    print("ok", text, flush=True)


def main(url, password):
    fails("SESSION_AUTHENTICATION_FAILED", lambda: XenAPI.Session(url, ignore_ssl=True).xenapi.login_with_password("root", "wrong"))
    session = XenAPI.Session(url, ignore_ssl=True)
    session.xenapi.login_with_password("root", password, "1.0", "whole_life.py")
    api = session.xenapi
    step("log in")

    [pool] = api.pool.get_all()
    master = api.pool.get_master(pool)
    version = api.host.get_software_version(master)["product_version"]
    assert [int(part) for part in version.split(".")] >= [7, 0], version
    assert "VM.start" in session.system.listMethods() if hasattr(session, "system") else True
    assert fails("MESSAGE_METHOD_UNKNOWN", api.VM.fly) == ["VM.fly"]
    assert fails("MESSAGE_PARAMETER_COUNT_MISMATCH", api.VM.start, "x") == ["VM.start", "3", "1"]
    fails("HANDLE_INVALID", api.VM.get_record, "OpaqueRef:no-such-thing")
    fails("UUID_INVALID", api.VM.get_by_uuid, "no-such-uuid")
    assert api.VM.get_by_name_label("there is no such VM") == []
    step("ask for what there is not")

    records = api.VM.get_all_records()
    templates = {
        record["name_label"]: vm
        for vm, record in records.items()
        if record["is_a_template"] and not record["is_a_snapshot"]
    }
    assert len(templates) >= 10, templates
    same = api.VM.get_all_records_where('field "is_a_template" = "true" and not field "is_a_snapshot" = "true"')
    assert set(same) == set(templates.values())
    ready = templates["Debian 12 (cloud-init)"]
    blank = templates["Other install media"]
    step("list templates")

    fails("VM_IS_TEMPLATE", api.VM.start, ready, False, False)
    fails("VM_IS_TEMPLATE", api.VM.destroy, blank)
    fails("OPERATION_NOT_ALLOWED", api.VM.clean_shutdown, api.host.get_control_domain(master))
    step("leave templates alone")

    sr = api.pool.get_default_SR(pool)
    empty = api.VM.clone(blank, "from an installer")
    fails("UUID_INVALID", api.VM.provision, empty)
    assert not api.VM.get_is_a_template(empty)
    fails("PROVISION_ONLY_ALLOWED_ON_TEMPLATE", api.VM.provision, empty)
    api.VM.destroy(empty)
    other = api.VM.clone(blank, "from an installer")
    disks = api.VM.get_other_config(other)["disks"]
    api.VM.remove_from_other_config(other, "disks")
    api.VM.add_to_other_config(other, "disks", disks.replace('sr=""', 'sr="%s"' % api.SR.get_uuid(sr)))
    api.VM.provision(other)
    [drive] = api.VM.get_VBDs(other)
    assert api.VBD.get_other_config(drive) == {"owner": ""}
    made = api.VBD.get_VDI(drive)
    assert api.VDI.get_virtual_size(made) == str(8 * GIB)
    fails("HANDLE_INVALID", api.VM.provision, empty)
    api.VM.destroy(other)
    api.VDI.destroy(made)
    fails("HANDLE_INVALID", api.VDI.destroy, made)
    step("provision from an installer template")

    task = wait_for_task(session, api.Async.VM.clone(ready, "whole-life"))
    assert task["status"] == "success", task
    vm = task["result"].replace("<value>", "").replace("</value>", "")
    assert api.VM.get_is_a_template(vm)
    api.VM.provision(vm)
    assert api.VM.get_other_config(vm)["base_template_name"] == "Debian 12 (cloud-init)"
    step("clone and provision a ready-made template")

    api.VM.add_to_other_config(vm, "test", "1")
    duplicate = fails("MAP_DUPLICATE_KEY", api.VM.add_to_other_config, vm, "test", "1")
    assert duplicate == ["VM", "other_config", vm, "test"], duplicate
    api.VM.remove_from_other_config(vm, "test")
    api.VM.remove_from_other_config(vm, "test")
    api.VM.add_tags(vm, "a")
    api.VM.add_tags(vm, "a")
    assert api.VM.get_tags(vm) == ["a"]
    api.VM.set_memory_limits(vm, str(GIB // 2), str(GIB), str(GIB), str(GIB))
    fails("MEMORY_CONSTRAINT_VIOLATION_ORDER", api.VM.set_memory_static_max, vm, str(GIB // 2))
    api.VM.set_VCPUs_max(vm, "2")
    api.VM.set_VCPUs_at_startup(vm, "1")
    fails("INVALID_VALUE", api.VM.set_VCPUs_at_startup, vm, "3")
    step("configure")

    data = api.VDI.create({
        "name_label": "data", "name_description": "", "SR": sr, "virtual_size": str(MIB + 1), "type": "user",
        "sharable": False, "read_only": False, "other_config": {}, "xenstore_data": {}, "sm_config": {}, "tags": [],
    })
    assert api.VDI.get_virtual_size(data) == str(2 * MIB)
    drive = {
        "VM": vm, "VDI": data, "userdevice": "1", "bootable": False, "mode": "RW", "type": "Disk",
        "unpluggable": True, "empty": False, "other_config": {}, "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    vbd = api.VBD.create(drive)
    assert fails("DEVICE_ALREADY_EXISTS", api.VBD.create, drive) == ["1"]
    fails("VBD_CDS_MUST_BE_READONLY", api.VBD.create, dict(drive, type="CD", userdevice="3"))
    cd = api.VBD.create(dict(drive, type="CD", mode="RO", userdevice="3", empty=True, VDI=""))
    [iso] = api.VDI.get_by_name_label("guest-tools.iso")
    fails("VBD_IS_EMPTY", api.VBD.eject, cd)
    api.VBD.insert(cd, iso)
    fails("VBD_NOT_EMPTY", api.VBD.insert, cd, iso)
    api.VBD.eject(cd)
    network = api.PIF.get_network(api.host.get_management_interface(master))
    card = {
        "device": "1", "network": network, "VM": vm, "MAC": "", "MTU": api.network.get_MTU(network),
        "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
    }
    vif = api.VIF.create(card)
    assert api.VIF.get_MAC_autogenerated(vif)
    assert fails("DEVICE_ALREADY_EXISTS", api.VIF.create, card) == ["1"]
    fails("MAC_INVALID", api.VIF.create, dict(card, device="2", MAC="nonsense"))
    assert "1" not in api.VM.get_allowed_VIF_devices(vm)
    step("add disks, a CD and an interface")

    auth = {"session_id": session._session, "vdi": data}
    content = b"first" + bytes(1 << 20) + b"last"
    for _ in range(2):
        task = api.task.create("upload", "")
        status, _ = http(url, "PUT", "/import_raw_vdi", dict(auth, task_id=task), content)
        assert status == 200, status
        assert wait_for_task(session, task)["status"] == "success"
    status, exported = http(url, "GET", "/export_raw_vdi", auth)
    assert status == 200, status
    assert len(exported) == 2 * MIB, len(exported)
    assert exported.startswith(content) and not exported[len(content):].strip(b"\0")
    status, _ = http(url, "GET", "/export_raw_vdi", {"vdi": data})
    assert status == 401, status
    step("import and export a disk")

    assert "start" in api.VM.get_allowed_operations(vm)
    api.VM.start(vm, False, False)
    assert fails("VM_BAD_POWER_STATE", api.VM.start, vm, False, False) == [vm, "halted", "running"]
    assert fails("VM_BAD_POWER_STATE", api.VM.destroy, vm) == [vm, "halted, suspended", "running"]
    assert fails("VDI_IN_USE", api.VDI.destroy, data) == [data, "destroy"]
    record, guest = wait_for(session, vm, lambda record, guest: guest and "0/ip" in guest["networks"])
    assert record["power_state"] == "Running" and record["resident_on"] == master
    assert "clean_shutdown" in record["allowed_operations"]
    assert guest["PV_drivers_detected"] and guest["other"]["feature-shutdown"] == "1"
    assert api.VM_metrics.get_record(record["metrics"])["memory_actual"] == str(GIB)
    step("start and wait for an address")

    assert fails("DEVICE_ALREADY_ATTACHED", api.VBD.plug, vbd) == [vbd]
    api.VBD.unplug(vbd)
    assert fails("DEVICE_ALREADY_DETACHED", api.VBD.unplug, vbd) == [vbd]
    api.VBD.plug(vbd)
    fails("OPERATION_NOT_ALLOWED", api.VBD.destroy, vbd)
    api.VIF.unplug(vif)
    fails("DEVICE_ALREADY_DETACHED", api.VIF.unplug, vif)
    step("plug and unplug")

    snapshot = api.VM.snapshot(vm, "before")
    assert api.VM.get_snapshots(vm) == [snapshot]
    assert api.VM.get_is_a_snapshot(snapshot) and api.VM.get_is_a_template(snapshot)
    fails("VM_IS_SNAPSHOT", api.VM.start, snapshot, False, False)
    fails("REVERT_ONLY_ALLOWED_ON_SNAPSHOT", api.VM.revert, vm)
    uuid = api.VM.get_uuid(vm)
    api.VM.set_name_description(vm, "changed")
    api.VM.revert(snapshot)
    api.VM.revert(snapshot)
    record = api.VM.get_record(vm)
    assert record["power_state"] == "Halted" and record["uuid"] == uuid and record["parent"] == snapshot
    assert record["name_label"] == "whole-life" and record["name_description"] == ""
    fails("HANDLE_INVALID", api.VBD.get_record, vbd)
    step("snapshot and revert")

    api.VM.start(vm, True, False)
    assert fails("VM_BAD_POWER_STATE", api.VM.pause, vm) == [vm, "running", "paused"]
    api.VM.unpause(vm)
    fails("VM_BAD_POWER_STATE", api.VM.unpause, vm)
    wait_for(session, vm, lambda record, guest: guest and guest["PV_drivers_detected"])
    api.VM.suspend(vm)
    assert api.VM.get_power_state(vm) == "Suspended"
    fails("VM_BAD_POWER_STATE", api.VM.suspend, vm)
    api.VM.resume(vm, False, False)
    fails("VM_BAD_POWER_STATE", api.VM.resume, vm, False, False)
    api.VM.clean_reboot(vm)
    wait_for(session, vm, lambda record, guest: guest and guest["PV_drivers_detected"])
    api.VM.hard_reboot(vm)
    step("pause, suspend, resume and reboot")

    wait_for(session, vm, lambda record, guest: guest and guest["PV_drivers_detected"])
    task = wait_for_task(session, api.Async.VM.clean_shutdown(vm))
    assert task["status"] == "success", task
    again = wait_for_task(session, api.Async.VM.clean_shutdown(vm))
    assert again["status"] == "failure"
    assert again["error_info"] == ["VM_BAD_POWER_STATE", vm, "running", "halted"], again
    assert fails("VM_BAD_POWER_STATE", api.VM.hard_shutdown, vm) == [vm, "paused, suspended, running", "halted"]
    step("shut down")

    drives = [api.VBD.get_record(drive) for drive in api.VM.get_VBDs(vm)]
    disks = [drive["VDI"] for drive in drives if drive["type"] == "Disk"]
    copies = [api.VBD.get_VDI(drive) for drive in api.VM.get_VBDs(snapshot) if api.VBD.get_type(drive) == "Disk"]
    api.VM.destroy(vm)
    assert fails("HANDLE_INVALID", api.VM.destroy, vm) == ["VM", vm]
    api.VM.destroy(snapshot)
    for disk in disks + copies:
        api.VDI.destroy(disk)
    names = [record["name"] for record in api.message.get_all_records().values() if record["obj_uuid"] == uuid]
    assert {"VM_STARTED", "VM_SHUTDOWN", "VM_SNAPSHOTTED", "VM_DELETED"} <= set(names), names
    left = [record["name_label"] for record in api.VM.get_all_records().values()]
    assert "whole-life" not in left
    step("destroy")

    session.xenapi.session.logout()
    step("log out")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
