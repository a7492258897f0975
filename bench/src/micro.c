// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The innermost operations of a paravirtual guest in C, written from Xen's public headers (io/ring.h, io/netif.h,
// io/xs_wire.h, grant_table.h, xen.h). Each function does one operation n times. They check what a peer says, as the
// Rust side does.

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define PAGE 4096u
#define KEEP(x) __asm__ volatile("" : : "r"(x) : "memory")
// As Rust's black_box: the compiler knows the value no more.
#define HIDE(x) __asm__ volatile("" : "+r"(x) : : "memory")

// io/ring.h: four indices, then the slots.

struct sring {
    uint32_t req_prod, req_event, rsp_prod, rsp_event;
    uint8_t pad[48];
    uint8_t slots[PAGE - 64];
};

struct end {
    struct sring *ring;
    uint32_t slots, size;
    uint32_t prod, published, cons, seen;
    // The other end claimed what cannot be: nothing is taken from it or shown to it any more.
    bool broken;
};

static void end_init(struct end *end, struct sring *ring, uint32_t size)
{
    uint32_t slots = (PAGE - 64) / size;
    while (slots & (slots - 1))
        slots &= slots - 1;
    *end = (struct end){ .ring = ring, .slots = slots, .size = size };
}

static inline void put(struct end *end, const void *value, uint32_t len)
{
    memcpy(end->ring->slots + (end->prod & (end->slots - 1)) * end->size, value, len);
    end->prod++;
}

static inline bool publish(struct end *end, uint32_t *prod, uint32_t *event)
{
    uint32_t old = end->published, new = end->prod;
    if (old == new || end->broken)
        return false;
    end->published = new;
    __atomic_store_n(prod, new, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return new - __atomic_load_n(event, __ATOMIC_RELAXED) < new - old;
}

static inline bool take(struct end *end, uint32_t *prod, uint32_t limit, void *value, uint32_t len)
{
    if (end->seen == end->cons) {
        if (end->broken)
            return false;
        uint32_t claimed = __atomic_load_n(prod, __ATOMIC_ACQUIRE);
        if (claimed - end->cons > limit) {
            end->broken = true;
            return false;
        }
        end->seen = claimed;
        if (claimed == end->cons)
            return false;
    }
    memcpy(value, end->ring->slots + (end->cons & (end->slots - 1)) * end->size, len);
    end->cons++;
    return true;
}

static struct sring page __attribute__((aligned(4096)));

static void page_init(struct end *front, struct end *back, uint32_t size)
{
    memset(&page, 0, sizeof(page));
    page.req_event = page.rsp_event = 1;
    end_init(front, &page, size);
    end_init(back, &page, size);
}

// A request there, a response back, a look at each publication whether the other end sleeps.
void c_ring(uint64_t n)
{
    struct end front, back;
    page_init(&front, &back, 8);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t value = i;
        if (front.prod - front.cons < front.slots)
            put(&front, &value, 8);
        KEEP(publish(&front, &page.req_prod, &page.req_event));
        if (take(&back, &page.req_prod, back.slots - (back.cons - back.published), &value, 8) && back.cons != back.prod)
            put(&back, &value, 8);
        KEEP(publish(&back, &page.rsp_prod, &page.rsp_event));
        if (take(&front, &page.rsp_prod, front.published - front.cons, &value, 8))
            KEEP(value);
    }
}

// grant_table.h, version 1: access ends by compare-and-swap, and is permitted again by a store.
struct grant_entry {
    uint16_t flags, domid;
    uint32_t frame;
};

void c_grant(uint64_t n)
{
    static struct grant_entry table[512];
    // The entries of a run of pages.
    static struct grant_entry *entries[1] = { &table[8] };
    uint32_t pages = 1;
    HIDE(pages);
    entries[0]->flags = 1;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t index = 0;
        HIDE(index);
        if (index >= pages)
            return;
        struct grant_entry *entry = entries[index];
        uint16_t flags = __atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE);
        // Only a peer that maps and unmaps at this moment makes it fail; not for ever.
        for (uint32_t tries = 0; flags; tries++) {
            if (flags & (8 | 16) || tries == 16)
                return;
            if (__atomic_compare_exchange_n(&entry->flags, &flags, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
                break;
        }
        KEEP(entry);
        if (index >= pages)
            return;
        if (!__atomic_load_n(&entries[index]->flags, __ATOMIC_RELAXED))
            __atomic_store_n(&entries[index]->flags, 1, __ATOMIC_RELEASE);
    }
}

// xen.h: pending bits, one word for 64 ports. Who waits for a port is called once when it has fired, and says that he waits
// again. A port that nobody waits for is left pending.
struct waiter {
    void (*wake)(void *data);
    void *data;
};

static uint64_t pending[64], awaited[64], count[4096];
static struct waiter waiters[4096];

static void await(uint32_t port, struct waiter waiter)
{
    waiters[port] = waiter;
    awaited[port / 64] |= 1ull << port % 64;
}

static void signal(uint32_t port)
{
    __atomic_fetch_or(&pending[port / 64], 1ull << port % 64, __ATOMIC_SEQ_CST);
}

// Takes what is pending and awaited. Begins behind the port that was first in the last one.
static bool dispatch(uint32_t words)
{
    static uint32_t next;
    uint32_t start = next % 64, word = next / 64;
    bool any = false;
    for (uint32_t step = 0; step < words; step++, word++) {
        if (word >= words)
            word = 0;
        uint64_t bits = __atomic_load_n(&pending[word], __ATOMIC_RELAXED) & awaited[word];
        if (!bits)
            continue;
        bits &= __atomic_fetch_and(&pending[word], ~bits, __ATOMIC_SEQ_CST);
        bits = bits >> start | bits << (-start % 64);
        while (bits) {
            uint32_t bit = ((uint32_t)__builtin_ctzll(bits) + start) % 64, port = word * 64 + bit;
            bits &= bits - 1;
            if (!any)
                next = port + 1;
            any = true;
            awaited[word] &= ~(1ull << bit);
            count[port]++;
            struct waiter waiter = waiters[port];
            waiters[port].wake = NULL;
            if (waiter.wake)
                waiter.wake(waiter.data);
        }
    }
    return any;
}

static void nobody(void *data)
{
    KEEP(data);
}

// One port of `ports` has fired.
void c_scan(uint64_t n, uint32_t ports)
{
    static uint64_t seen[4096];
    struct waiter waiter = { nobody, NULL };
    HIDE(waiter.wake);
    for (uint32_t port = 1; port <= ports; port++)
        await(port, waiter);
    for (uint64_t i = 0; i < n; i++) {
        uint32_t fired = i % ports + 1;
        signal(fired);
        KEEP(dispatch(ports / 64 + 1));
        seen[fired]++;
        if (count[fired] <= seen[fired])
            await(fired, waiter);
    }
}

// event_channel.h, the FIFO form: a word for each port, linked while it waits to be taken.

#define PENDING (1u << 31)
#define MASKED (1u << 30)
#define LINKED (1u << 29)
#define BUSY (1u << 28)
#define LINK 0x1ffffu

static uint32_t words[8192], fifo_ready, fifo_head, fifo_tail;
static bool fifo_awaited[8192];
static uint64_t fifo_count[8192];
static struct waiter fifo_waiters[8192];

// Xen's part.
static void fifo_signal(uint32_t port)
{
    __atomic_fetch_or(&words[port], PENDING, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&words[port], __ATOMIC_SEQ_CST) & MASKED)
        return;
    if (__atomic_fetch_or(&words[port], LINKED, __ATOMIC_SEQ_CST) & LINKED)
        return;
    uint32_t tail = fifo_tail, old;
    fifo_tail = port;
    if (tail && tail != port) {
        old = __atomic_load_n(&words[tail], __ATOMIC_SEQ_CST);
        if (old & LINKED && __atomic_compare_exchange_n(&words[tail], &old, (old & ~(BUSY | LINK)) | port, false,
                                                        __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            return;
    }
    __atomic_store_n(&fifo_head, port, __ATOMIC_SEQ_CST);
    __atomic_fetch_or(&fifo_ready, 1u << 7, __ATOMIC_SEQ_CST);
}

static void fifo_await(uint32_t port, struct waiter waiter)
{
    fifo_waiters[port] = waiter;
    fifo_awaited[port] = true;
    uint32_t seen = __atomic_load_n(&words[port], __ATOMIC_RELAXED);
    do
        seen &= ~BUSY;
    while (!(seen & PENDING) && !__atomic_compare_exchange_n(&words[port], &seen, seen & ~MASKED, false,
                                                             __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
}

static bool fifo_dispatch(void)
{
    bool any = false;
    while (__atomic_load_n(&fifo_ready, __ATOMIC_RELAXED) && __atomic_exchange_n(&fifo_ready, 0, __ATOMIC_SEQ_CST)) {
        uint32_t port = __atomic_load_n(&fifo_head, __ATOMIC_RELAXED);
        while (port && port < 8192) {
            uint32_t seen = __atomic_load_n(&words[port], __ATOMIC_RELAXED), new;
            bool fired;
            do {
                fired = fifo_awaited[port] && seen & PENDING;
                new = seen & ~(LINKED | LINK);
                if (fired)
                    new = (new & ~PENDING) | MASKED;
            } while (!__atomic_compare_exchange_n(&words[port], &seen, new, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
            if (fired) {
                any = true;
                fifo_awaited[port] = false;
                fifo_count[port]++;
                struct waiter waiter = fifo_waiters[port];
                fifo_waiters[port].wake = NULL;
                if (waiter.wake)
                    waiter.wake(waiter.data);
            }
            port = seen & LINK;
        }
    }
    return any;
}

void c_fifo(uint64_t n, uint32_t ports)
{
    static uint64_t seen[8192];
    struct waiter waiter = { nobody, NULL };
    HIDE(waiter.wake);
    for (uint32_t port = 1; port <= ports; port++) {
        words[port] = MASKED;
        fifo_await(port, waiter);
    }
    for (uint64_t i = 0; i < n; i++) {
        uint32_t fired = i % ports + 1;
        fifo_signal(fired);
        KEEP(fifo_dispatch());
        seen[fired]++;
        if (fifo_count[fired] <= seen[fired])
            fifo_await(fired, waiter);
    }
}

// Tasks that are ready, each of them once, in a queue with a lock, as wakes may come from elsewhere.
struct task {
    bool queued;
    void (*run)(struct task *task);
    uint32_t port;
    uint64_t seen;
};

static struct {
    bool locked;
    uint32_t head, tail;
    struct task *tasks[64];
} ready;

static void lock(void)
{
    while (__atomic_exchange_n(&ready.locked, true, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
}

static void unlock(void)
{
    __atomic_store_n(&ready.locked, false, __ATOMIC_RELEASE);
}

static void wake(void *data)
{
    struct task *task = data;
    if (__atomic_exchange_n(&task->queued, true, __ATOMIC_ACQ_REL))
        return;
    lock();
    ready.tasks[ready.tail++ % 64] = task;
    unlock();
}

static uint32_t ready_tasks(void)
{
    lock();
    uint32_t tasks = ready.tail - ready.head;
    unlock();
    return tasks;
}

// Runs the tasks that are ready at this moment, once. Whether there are more.
static bool turn(void)
{
    for (uint32_t tasks = ready_tasks(); tasks; tasks--) {
        lock();
        struct task *task = ready.tasks[ready.head++ % 64];
        unlock();
        (void)__atomic_exchange_n(&task->queued, false, __ATOMIC_ACQ_REL);
        task->run(task);
    }
    return ready_tasks();
}

static void serve(struct task *task)
{
    while (count[task->port] > task->seen)
        task->seen = count[task->port];
    await(task->port, (struct waiter){ wake, task });
}

// A port fires, for which a task waits, and the task runs until it waits again.
void c_task(uint64_t n)
{
    struct task task = { .run = serve, .port = 1 };
    HIDE(task.run);
    count[1] = 0;
    serve(&task);
    for (uint64_t i = 0; i < n; i++) {
        signal(1);
        KEEP(dispatch(1));
        KEEP(turn());
    }
}

// io/xs_wire.h: a WRITE request is built, the answer to a READ is taken apart.
struct xsd_sockmsg {
    uint32_t type, req_id, tx_id, len;
};

static bool path_ok(const char *path, size_t len)
{
    if (!len || len > (path[0] == '/' ? 3072 : 2048) || (path[len - 1] == '/' && len > 1))
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = path[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '/' ||
                  c == '_' || c == '@';
        if (!ok || (c == '/' && i && path[i - 1] == '/'))
            return false;
    }
    return true;
}

void c_store(uint64_t n)
{
    static uint8_t out[sizeof(struct xsd_sockmsg) + 4096];
    const char *path = "device/vif/0/state";
    static const uint8_t message[] = { 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, '4' };
    for (uint64_t i = 0; i < n; i++) {
        size_t len = strlen("device/vif/0/state");
        HIDE(path);
        HIDE(len);
        if (!path_ok(path, len))
            return;
        struct xsd_sockmsg header = { 11, (uint32_t)i, 0, (uint32_t)len + 2 };
        if (header.len > 4096)
            return;
        memcpy(out, &header, sizeof(header));
        memcpy(out + sizeof(header), path, len);
        out[sizeof(header) + len] = 0;
        out[sizeof(header) + len + 1] = '4';
        KEEP(out);

        const uint8_t *answer = message;
        size_t size = sizeof(message);
        HIDE(answer);
        HIDE(size);
        if (size < sizeof(header))
            return;
        memcpy(&header, answer, sizeof(header));
        if (header.len > 4096 || header.len > size - sizeof(header) || header.type != 2)
            return;
        KEEP(answer + sizeof(header));
    }
}

// xen.h: vcpu_time_info.
struct vcpu_time_info {
    uint32_t version, pad0;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad1[2];
};

void c_clock(uint64_t n)
{
    static struct vcpu_time_info info = { .tsc_to_system_mul = 1u << 31, .tsc_shift = 1 };
    uint64_t latest = 0;
    for (uint64_t tsc = 0; tsc < n; tsc++) {
        uint32_t version;
        uint64_t now;
        KEEP(&info);
        do {
            version = __atomic_load_n(&info.version, __ATOMIC_ACQUIRE);
            uint64_t ticks = tsc > info.tsc_timestamp ? tsc - info.tsc_timestamp : 0;
            ticks = info.tsc_shift < 0 ? ticks >> -info.tsc_shift : ticks << info.tsc_shift;
            now = info.system_time + (uint64_t)(((unsigned __int128)ticks * info.tsc_to_system_mul) >> 32);
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
        } while (version & 1 || version != __atomic_load_n(&info.version, __ATOMIC_RELAXED));
        latest = now > latest ? now : latest;
        KEEP(latest);
    }
}

// io/netif.h: a packet of `len` bytes becomes requests, one for each page that it touches; then it is acknowledged.
struct netif_tx_request {
    uint32_t gref;
    uint16_t offset, flags, id, size;
};

struct netif_tx_response {
    uint16_t id;
    int16_t status;
};

void c_tx(uint64_t n, uint64_t start, uint64_t len)
{
    struct end front, back;
    page_init(&front, &back, sizeof(struct netif_tx_request));
    for (uint64_t i = 0; i < n; i++) {
        KEEP(&start);
        for (uint64_t done = 0; done < len && front.prod - front.cons < front.slots;) {
            uint64_t at = start + done, part = PAGE - at % PAGE;
            if (part > len - done)
                part = len - done;
            uint64_t size = done ? part : len;
            done += part;
            struct netif_tx_request request = {
                .gref = (uint32_t)(at / PAGE),
                .offset = (uint16_t)(at % PAGE),
                .flags = done < len ? 4 : 0,
                .id = (uint16_t)(front.prod & (front.slots - 1)),
                .size = (uint16_t)size,
            };
            put(&front, &request, sizeof(request));
        }
        KEEP(publish(&front, &page.req_prod, &page.req_event));
        struct netif_tx_request request;
        while (take(&back, &page.req_prod, back.slots - (back.cons - back.published), &request, sizeof(request))) {
            struct netif_tx_response response = { request.id, 0 };
            if (back.cons != back.prod)
                put(&back, &response, sizeof(response));
        }
        KEEP(publish(&back, &page.rsp_prod, &page.rsp_event));
        struct netif_tx_response response;
        while (take(&front, &page.rsp_prod, front.published - front.cons, &response, sizeof(response)))
            KEEP(response.status);
    }
}
