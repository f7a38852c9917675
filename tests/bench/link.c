/*
 * One emulated link between two TUN devices, in a process of its own.
 *
 *     link SEED UP-DEVICE DOWN-DEVICE
 *
 * "up" is what enters UP-DEVICE and leaves at DOWN-DEVICE; "down" is the other way.  Each
 * packet passes, in this order: a drop-tail queue that is served at a rate; a queue of its
 * TCP connection, served at a lower rate, if there is a limit; random loss; a delay.
 *
 * It is driven by lines on its standard input, DIRECTION NAME VALUE:
 *
 *     up|down|both rate BITS-PER-SECOND       0: as quick as it goes
 *     up|down|both delay SECONDS
 *     up|down|both loss PROBABILITY
 *     up|down|both queue BYTES                waiting to be sent
 *     up|down|both limit BITS-PER-SECOND      of each TCP connection; 0: none
 *     up|down|both limit_queue BYTES          waiting there, of each connection
 *     up|down|both blackhole 0|1              drop everything, what is on its way included
 *     count                                   change nothing
 *
 * Every line is answered by a line of JSON with the counters; the end of the input ends the
 * process, and with it the devices.
 *
 * All queues are kept as times: the moment at which a queue will be empty says how much is
 * in it.  So a packet's fate and its time of arrival are known as it enters, and all that
 * is kept is a heap of packets by that time.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define MTU 1500
#define BATCH 256          /* packets read from a device before others have their turn */
#define PAUSE 100000       /* ns between two looks at devices on which packets come */
#define CONNECTIONS 4096   /* limited ones, by hash; two that collide share a limit */
#define MOST_PACKETS 262144

struct packet {
    int64_t due;
    uint64_t number;       /* those due at the same moment leave in the order they came */
    struct direction *way;
    int length, payload;
    uint8_t data[];
};

struct direction {
    int from, to;
    double rate, delay, loss, queue, limit, limit_queue, blackhole;
    double idle_at;                          /* when the queue will be empty */
    double connection_idle_at[CONNECTIONS];  /* and those of the connections */
    uint64_t packets, bytes, payload;        /* delivered */
    uint64_t overflowed, limited, lost, swallowed;
};

static struct direction ways[2];
static struct packet **heap;
static size_t waiting;
static uint64_t numbers, dice;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* xorshift64*, Vigna 2016: a number in [0, 1). */
static double roll(void) {
    dice ^= dice >> 12;
    dice ^= dice << 25;
    dice ^= dice >> 27;
    return (double)(dice * 0x2545F4914F6CDD1DULL >> 11) / 9007199254740992.0;
}

/* ---- the heap */

static int before(const struct packet *a, const struct packet *b) {
    return a->due != b->due ? a->due < b->due : a->number < b->number;
}

static void push(struct packet *packet) {
    size_t at = waiting++;
    while (at && before(packet, heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = packet;
}

static struct packet *pop(void) {
    struct packet *first = heap[0], *last = heap[--waiting];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < waiting) {
        if (child + 1 < waiting && before(heap[child + 1], heap[child]))
            child++;
        if (before(last, heap[child]))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return first;
}

/* ---- what a packet is */

static int is_tcp(const uint8_t *p, int length) {
    return length >= 40 && p[0] >> 4 == 4 && p[9] == 6;
}

/* Bytes of TCP payload in an IPv4 packet. */
static int payload_of(const uint8_t *p, int length) {
    int head = (p[0] & 15) * 4;
    if (!is_tcp(p, length) || head + 20 > length)
        return 0;
    return length - head - (p[head + 12] >> 4) * 4;
}

/* Addresses and ports: a number for each TCP connection. */
static unsigned connection_of(const uint8_t *p) {
    const uint8_t *ports = p + (p[0] & 15) * 4;
    uint32_t hash = 2166136261u;
    for (int i = 12; i < 20; i++)
        hash = (hash ^ p[i]) * 16777619u;
    for (int i = 0; i < 4; i++)
        hash = (hash ^ ports[i]) * 16777619u;
    return (hash ^ hash >> 16) % CONNECTIONS;
}

/* ---- what the link does to it */

/* Stand in a queue that is empty at *idle_at: when it has been sent, or -1 if it is full. */
static double stand(double *idle_at, double at, double rate, double room, int length) {
    double start = *idle_at > at ? *idle_at : at;
    if ((start - at) * rate / 8e9 + length > room)
        return -1;
    return *idle_at = start + length * 8e9 / rate;
}

/* When a packet that enters now arrives; -1 if it does not. */
static double fate(struct direction *way, const uint8_t *data, int length, double at) {
    if (way->blackhole) {
        way->swallowed++;
        return -1;
    }
    if (way->rate && (at = stand(&way->idle_at, at, way->rate, way->queue, length)) < 0) {
        way->overflowed++;
        return -1;
    }
    if (way->limit && is_tcp(data, length)) {
        double *idle_at = &way->connection_idle_at[connection_of(data)];
        if ((at = stand(idle_at, at, way->limit, way->limit_queue, length)) < 0) {
            way->limited++;
            return -1;
        }
    }
    if (way->loss && roll() < way->loss) {
        way->lost++;
        return -1;
    }
    return at + way->delay * 1e9;
}

/* Take what has come; how many packets. */
static int take(struct direction *way) {
    static uint8_t data[65536];
    int count = 0, length;
    double entered = now();
    while (count < BATCH && (length = read(way->from, data, sizeof data)) > 0) {
        double due = fate(way, data, length, entered);
        count++;
        if (due < 0)
            continue;
        if (waiting == MOST_PACKETS) {
            way->overflowed++;
            continue;
        }
        struct packet *packet = malloc(sizeof *packet + length);
        if (!packet)
            die("malloc");
        *packet = (struct packet){(int64_t)due, numbers++, way, length, payload_of(data, length)};
        memcpy(packet->data, data, length);
        push(packet);
    }
    return count;
}

/* Let those out whose time has come; how many. */
static int deliver(int64_t at) {
    int count = 0;
    while (waiting && heap[0]->due <= at) {
        struct packet *packet = pop();
        struct direction *way = packet->way;
        if (way->blackhole || write(way->to, packet->data, packet->length) < 0) {
            way->swallowed++;
        } else {
            way->packets++;
            way->bytes += packet->length;
            way->payload += packet->payload;
        }
        free(packet);
        count++;
    }
    return count;
}

/* ---- its control */

static int set(struct direction *way, const char *name, double value) {
    struct { const char *name; double *place; } places[] = {
        {"rate", &way->rate}, {"delay", &way->delay}, {"loss", &way->loss},
        {"queue", &way->queue}, {"limit", &way->limit}, {"limit_queue", &way->limit_queue},
        {"blackhole", &way->blackhole},
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (!strcmp(name, places[i].name)) {
            *places[i].place = value;
            return 0;
        }
    return -1;
}

static void obey(const char *line) {
    char which[8], name[16];
    double value;
    int up, down, wrong = 0;
    if (strcmp(line, "count")) {
        wrong = sscanf(line, "%7s %15s %lf", which, name, &value) != 3;
        up = !wrong && strcmp(which, "down");
        down = !wrong && strcmp(which, "up");
        if ((up && set(&ways[0], name, value)) || (down && set(&ways[1], name, value)))
            wrong = 1;
    }
    printf("{\"understood\": %s", wrong ? "false" : "true");
    for (int i = 0; i < 2; i++)
        printf(", \"%s\": {\"packets\": %lu, \"bytes\": %lu, \"payload\": %lu, \"overflowed\": %lu,"
               " \"limited\": %lu, \"lost\": %lu, \"swallowed\": %lu}",
               i ? "down" : "up", ways[i].packets, ways[i].bytes, ways[i].payload,
               ways[i].overflowed, ways[i].limited, ways[i].lost, ways[i].swallowed);
    printf("}\n");
    fflush(stdout);
}

static void listen_to_control(void) {
    static char text[4096];
    static size_t size;
    char *end;
    ssize_t more = read(0, text + size, sizeof text - 1 - size);
    if (more <= 0)
        exit(0);
    text[size += more] = 0;
    while ((end = strchr(text, '\n'))) {
        *end = 0;
        obey(text);
        size -= end + 1 - text;
        memmove(text, end + 1, size + 1);
    }
}

static int device(const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        die("/dev/net/tun");
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(fd, TUNSETIFF, &request))
        die(name);
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: link SEED UP-DEVICE DOWN-DEVICE\n");
        return 2;
    }
    dice = strtoull(argv[1], NULL, 10) * 0x9E3779B97F4A7C15ULL + 1;
    ways[0].from = ways[1].to = device(argv[2]);
    ways[1].from = ways[0].to = device(argv[3]);
    heap = malloc(MOST_PACKETS * sizeof *heap);
    if (!heap)
        die("malloc");
    prctl(PR_SET_TIMERSLACK, 1000UL);
    struct pollfd fds[3] = {{0, POLLIN, 0}, {ways[0].from, POLLIN, 0}, {ways[1].from, POLLIN, 0}};
    obey("count");
    for (;;) {
        int moved = take(&ways[0]) + take(&ways[1]) + deliver(now());
        int64_t rest = waiting ? heap[0]->due - now() : 1000000000;
        /* While packets come, they are looked at together: the control alone can wake us. */
        if (moved || rest < 0)
            rest = moved < BATCH ? PAUSE : 0;
        struct timespec pause = {rest / 1000000000, rest % 1000000000};
        if (ppoll(fds, moved ? 1 : 3, &pause, NULL) > 0 && fds[0].revents)
            listen_to_control();
    }
}
