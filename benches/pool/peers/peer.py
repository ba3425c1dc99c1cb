"""The Python client `XenAPI` from PyPI, told what to do line by line.

Usage: peer.py URL PASSWORD

Reads one command a line, and answers each with one line of JSON.
"""

import json
import sys
import threading
import time

import XenAPI


class Peer:
    def __init__(self, url, password):
        self.url = url
        self.session = XenAPI.Session(url)
        self.session.xenapi.login_with_password("root", password, "1.0", "compare-pool")
        self.sessions = [self.session]

    def records(self):
        start = time.perf_counter()
        records = self.session.xenapi.VM.get_all_records()
        return {"seconds": [time.perf_counter() - start], "count": len(records)}

    def calls(self, vm, total, at_once):
        # A proxy serves one thread at a time; they share the session, as the library has it.
        while len(self.sessions) < at_once:
            session = XenAPI.Session(self.url)
            session._session = self.session.handle
            session.xenapi.VM.get_power_state(vm)
            self.sessions.append(session)

        def loop(session):
            for _ in range(total // at_once):
                session.xenapi.VM.get_power_state(vm)

        start = time.perf_counter()
        if at_once == 1:
            loop(self.session)
        else:
            threads = [threading.Thread(target=loop, args=[it]) for it in self.sessions[:at_once]]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return {"seconds": [time.perf_counter() - start], "count": total // at_once * at_once}


def main(url, password):
    peer = Peer(url, password)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "records":
            answer = peer.records()
        elif command == "calls":
            answer = peer.calls(words[0], int(words[1]), int(words[2]))
        else:
            answer = {"error": f"{command} is not for this client"}
        print(json.dumps(answer), flush=True)


main(*sys.argv[1:])
