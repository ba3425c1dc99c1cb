// Mirrors a pool with the npm client `xen-api` while VMs change, and compares the mirror with the pool.
//
// Usage: node mirror.mjs URL PASSWORD [--quick]
//
// Prints one line for each step and ends with 0 when all held.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

// Packages are installed beside the build, so that the source tree stays clean.
const root = process.env.XENAPI_SIM_NODE_MODULES ?? import.meta.dirname
const { resolve } = createRequire(join(root, 'package.json'))
const load = async name => import(pathToFileURL(resolve(name)))
const { createClient } = await load('xen-api')

const [url, password] = process.argv.slice(2)
const step = text => console.log('ok', text)

const warnings = []
console.warn = (...words) => warnings.push(words)

const options = { allowUnauthorized: true, auth: { user: 'root', password } }
const mirror = createClient({ ...options, url })
const actor = createClient({ ...options, url, watchEvents: false })
await mirror.connect()
await actor.connect()
await mirror.objectsFetched
step('connect and fetch all objects')

// Waits until the mirror's object with this reference fits.
const until = async (ref, fits) => {
  const deadline = Date.now() + 20e3
  for (;;) {
    const object = mirror.getObject(ref, null)
    if (fits(object)) {
      return object
    }
    assert(Date.now() < deadline, `the mirror never showed ${ref} as it should be`)
    await mirror.barrier(mirror.pool.$ref)
  }
}

const by = record => record.$type === 'VM' && record.name_label === 'Debian 12 (cloud-init)'
const template = Object.values(mirror.objects.all).find(by)
assert(template, 'the template is in the mirror')
assert.equal(typeof template.memory_static_max, 'number')

const vms = await Promise.all(
  Array.from({ length: 10 }, async (_, number) => {
    const vm = await mirror.callAsync('VM.clone', template.$ref, `mirror-${number}`)
    await actor.call('VM.provision', vm)
    await actor.setField('VM', vm, 'name_description', 'made by a test')
    await actor.call('VM.start', vm, false, false)
    return vm
  })
)
for (const vm of vms) {
  const object = await until(vm, it => it?.power_state === 'Running' && it.name_description === 'made by a test')
  assert.equal(object.$VBDs.length, 1)
  assert.equal(object.$VIFs[0].$network.name_label, 'Pool-wide network associated with eth0')
  await until(object.guest_metrics, it => it?.networks['0/ip'] !== undefined)
}
step('mirror VMs that are made and started')

await assert.rejects(actor.call('VM.start', vms[0], false, false), error => {
  assert.equal(error.code, 'VM_BAD_POWER_STATE')
  assert.deepEqual(error.params, [vms[0], 'halted', 'running'])
  return true
})
step('tell errors')

await Promise.all(
  vms.map(async vm => {
    await actor.call('VM.hard_shutdown', vm)
    const drives = await actor.getField('VM', vm, 'VBDs')
    const disks = await Promise.all(drives.map(drive => actor.getField('VBD', drive, 'VDI')))
    await actor.call('VM.destroy', vm)
    await Promise.all(disks.map(disk => mirror.callAsync('VDI.destroy', disk)))
  })
)
for (const vm of vms) {
  await until(vm, it => it === null)
}
step('mirror VMs that are destroyed')

// What the mirror holds must be what the pool holds.
await mirror.barrier(mirror.pool.$ref)
for (const type of ['VM', 'VBD', 'VDI', 'VIF', 'SR', 'host', 'network', 'PIF', 'VM_metrics', 'VM_guest_metrics']) {
  const held = Object.values(mirror.objects.all).filter(object => object.$type === type)
  const there = await actor.call(`${type}.get_all_records`)
  assert.deepEqual(held.map(object => object.$ref).sort(), Object.keys(there).sort(), type)
}
assert.deepEqual(warnings, [])
step('hold what the pool holds')

await mirror.disconnect()
await actor.disconnect()
step('disconnect')
process.exit(0)
