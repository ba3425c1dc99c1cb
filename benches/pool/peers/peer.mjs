// The npm client `xen-api`, told what to do line by line.
//
// Usage: node peer.mjs URL PASSWORD
//
// Reads one command a line, and answers each with one line of JSON.

import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { createClient } from 'xen-api'

const [url, password] = process.argv.slice(2)
const options = { url, auth: { user: 'root', password }, allowUnauthorized: true, callConcurrency: 32 }

const now = () => performance.now() / 1e3

const client = createClient({ ...options, watchEvents: false })
await client.connect()

// The client that watches or mirrors, once there is one.
let mirror

const commands = {
  async records() {
    const start = now()
    const records = await client.call('VM.get_all_records')
    return { seconds: [now() - start], count: Object.keys(records).length }
  },

  async calls(vm, total, atOnce) {
    const each = Math.floor(total / atOnce)
    const loop = async () => {
      for (let i = 0; i < each; ++i) {
        await client.call('VM.get_power_state', vm)
      }
    }
    const start = now()
    await Promise.all(Array.from({ length: atOnce }, loop))
    return { seconds: [now() - start], count: each * atOnce }
  },

  // Fills a mirror of these classes, and goes on following. It waits so many milliseconds between requests.
  async mirror(debounce, ...classes) {
    const start = now()
    mirror = createClient({ ...options, watchEvents: classes, debounce: Number(debounce) })
    await mirror.connect()
    await mirror.objectsFetched
    const seconds = now() - start
    globalThis.gc()
    return { seconds: [seconds], count: Object.keys(mirror.objects.all).length }
  },

  watch(debounce, ...classes) {
    return this.mirror(debounce, ...classes)
  },

  // Changes a VM so many times, each after a pause in milliseconds, and says how long it takes until the mirror tells of each.
  async changes(vm, count, pause) {
    const seconds = []
    for (let i = 0; i < count; ++i) {
      // Not always the same, lest changes fall in with what the server or the client do at intervals.
      await setTimeout(Number(pause) * (1 + ((i * 0.618) % 1)))
      const text = `change ${i} at ${now()}`
      const heard = new Promise(resolve => {
        const check = objects => {
          if (Object.values(objects).some(object => object?.name_description === text)) {
            mirror.objects.removeListener('update', check)
            resolve(now())
          }
        }
        mirror.objects.on('update', check)
      })
      const start = now()
      const [end] = await Promise.all([heard, client.setField('VM', vm, 'name_description', text)])
      seconds.push(end - start)
    }
    return { seconds }
  },
}

console.log(JSON.stringify({ ready: true }))
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...words] = line.split(' ')
  const answer = await commands[command](...words).catch(error => ({ error: String(error.stack) }))
  console.log(JSON.stringify(answer))
}
process.exit(0)
