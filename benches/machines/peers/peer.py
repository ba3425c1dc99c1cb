"""VMs on a pool by `XenAPI` and `paramiko` from PyPI, told what to do line by line.

Usage: peer.py URL PASSWORD DIRECTORY TEMPLATE USER PORT

In the directory are the image of a seed disk, `seed`, and the private key that opens the guests which
grow from it, `key`. Reads one command a line, and answers each with one line of JSON.

It makes VMs as the library did that BioXen replaces: it clones, starts, asks for the address at
intervals, and tries SSH at intervals. That library logged in with a password that the template had; the
seed is what gives this one its way in.
"""

import concurrent.futures
import http.client
import json
import os
import resource
import socket
import sys
import threading
import time
import urllib.parse

import paramiko
import XenAPI

CODE = "lua5.4 -e 'print(1 + 1)'"


class Refused(Exception):
    pass


class Machine:
    """A VM with its disks."""

    def __init__(self, peer):
        self.peer = peer
        self.api = peer.session().xenapi
        self.vm = None

    def make(self):
        api, peer = self.api, self.peer
        template = api.VM.get_by_name_label(peer.template)[0]
        self.vm = api.VM.clone(template, "peer")
        api.VM.provision(self.vm)
        self.seed()
        api.VM.start(self.vm, False, False)

    def seed(self):
        api, peer = self.api, self.peer
        pool = api.pool.get_all()[0]
        disk = api.VDI.create({
            "name_label": "peer seed", "name_description": "", "SR": api.pool.get_default_SR(pool),
            "virtual_size": str(2 << 20), "type": "user", "sharable": False, "read_only": False,
            "other_config": {},
        })
        address = urllib.parse.urlsplit(peer.url)
        connection = http.client.HTTPConnection(address.hostname, address.port)
        query = urllib.parse.urlencode(
            {"session_id": peer.session().handle, "vdi": disk, "format": "raw"})
        connection.request("PUT", "/import_raw_vdi?" + query, peer.seed)
        answer = connection.getresponse()
        if answer.status != 200:
            raise Refused(f"the disk was answered with {answer.status}")
        answer.read()
        connection.close()
        api.VBD.create({
            "VM": self.vm, "VDI": disk, "userdevice": "autodetect", "bootable": False, "mode": "RO",
            "type": "Disk", "empty": False, "other_config": {}, "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        })

    def address(self, every):
        while True:
            metrics = self.api.VM.get_guest_metrics(self.vm)
            if metrics != "OpaqueRef:NULL":
                found = self.api.VM_guest_metrics.get_networks(metrics).get("0/ip")
                if found:
                    return found
            time.sleep(every)

    def shell(self, address, every):
        while True:
            try:
                return connect(address, self.peer.port, self.peer.user, self.peer.key)
            except (OSError, paramiko.SSHException):
                time.sleep(every)

    def answer(self, poll_address, poll_ssh, grown=False):
        """From the template to Lua's answer, in a guest that is `grown`, if so wanted."""
        self.make()
        with self.shell(self.address(poll_address), poll_ssh) as client:
            if grown:
                _, output, _ = client.exec_command("cloud-init status --wait")
                output.channel.recv_exit_status()
            execute(client, CODE)

    def remove(self):
        api = self.api
        api.VM.hard_shutdown(self.vm)
        disks = []
        for vbd in api.VM.get_VBDs(self.vm):
            if api.VBD.get_type(vbd) == "Disk":
                disks.append(api.VBD.get_VDI(vbd))
        api.VM.destroy(self.vm)
        for disk in disks:
            api.VDI.destroy(disk)


class Peer:
    def __init__(self, url, password, directory, template, user, port):
        self.url, self.password = url, password
        self.template, self.user, self.port = template, user, int(port)
        with open(os.path.join(directory, "seed"), "rb") as file:
            self.seed = file.read()
        self.key = os.path.join(directory, "key")
        self.local = threading.local()

    def session(self):
        # One connection serves one thread at a time.
        if not hasattr(self.local, "session"):
            self.local.session = XenAPI.Session(self.url)
            self.local.session.xenapi.login_with_password(
                "root", self.password, "1.0", "compare-machines")
        return self.local.session

    def answer(self, poll_address, poll_ssh, grown):
        self.session()
        machine = Machine(self)
        try:
            start = time.perf_counter()
            machine.answer(poll_address, poll_ssh, grown)
            taken = time.perf_counter() - start
        finally:
            machine.remove()
        return {"seconds": [taken]}

    def lives(self, count, threads, poll_address, poll_ssh):
        def life(_):
            machine = Machine(self)
            try:
                machine.answer(poll_address, poll_ssh)
            finally:
                machine.remove()

        start = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(life, range(count)))
        return {"seconds": [time.perf_counter() - start]}

    def execs(self, host, count, nodelay):
        with connect(host, self.port, self.user, self.key, nodelay) as client:
            execute(client, CODE)
            seconds = []
            for _ in range(count):
                start = time.perf_counter()
                execute(client, CODE)
                seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def crowd(self, host, count, each, nodelay):
        """So many connections, each with a thread, that all run code at once."""
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            clients = list(pool.map(
                lambda _: connect(host, self.port, self.user, self.key, nodelay), range(count)))

        def loop(client):
            for _ in range(each):
                execute(client, CODE)

        start = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            list(pool.map(loop, clients))
        taken = time.perf_counter() - start
        for client in clients:
            client.close()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"seconds": [taken], "count": count * each, "memory": memory}

    def watch(self, seconds, every):
        """Looks after all VMs by asking for their states at intervals."""
        api = self.session().xenapi
        vms = [vm for vm in api.VM.get_all() if not api.VM.get_is_a_template(vm)]
        until, asked = time.perf_counter() + seconds, 0
        while time.perf_counter() < until:
            began = time.perf_counter()
            for vm in vms:
                api.VM.get_power_state(vm)
                asked += 1
            time.sleep(max(0, every - (time.perf_counter() - began)))
        return {"count": asked, "vms": len(vms)}


def connect(host, port, user, key, nodelay=False):
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(host, port=port, username=user, key_filename=key, timeout=10,
                   allow_agent=False, look_for_keys=False)
    if nodelay:
        client.get_transport().sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def execute(client, command):
    _, output, _ = client.exec_command(command)
    said = output.read()
    if said != b"2\n" or output.channel.recv_exit_status() != 0:
        raise Refused(f"Lua said {said!r}")


def main(*arguments):
    peer = Peer(*arguments)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        try:
            if command == "answer":
                answer = peer.answer(float(words[0]), float(words[1]), words[2:] == ["grown"])
            elif command == "lives":
                answer = peer.lives(int(words[0]), int(words[1]), float(words[2]), float(words[3]))
            elif command == "execs":
                answer = peer.execs(words[0], int(words[1]), words[2] == "nodelay")
            elif command == "crowd":
                answer = peer.crowd(words[0], int(words[1]), int(words[2]), words[3] == "nodelay")
            elif command == "watch":
                answer = peer.watch(float(words[0]), float(words[1]))
            else:
                answer = {"error": f"{command} is not for this client"}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main(*sys.argv[1:])
