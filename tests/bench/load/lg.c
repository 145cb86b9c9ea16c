/* Load generator: publishes through a broker and compares every byte that comes back.
 *
 * Knows: how many messages may be under way, what each delivered frame must look like, time, the broker's
 * CPU. Does not know: how a session begins (wire.py connects, says hello, subscribes, and hands over file
 * descriptors). Frames were written down from the public descriptions of RMP v0, RESP2, the NATS client
 * protocol, MQTT 3.1.1, ZMTP 3.0 and D-Bus 1; in all but D-Bus a delivered frame is the same for every
 * message but for its number, so that a comparison of bytes is the strictest and the cheapest parser.
 *
 * The payload of message n of publisher p is its number (8 bytes, little-endian) and bytes of one fixed
 * sequence that begin at a place depending on n and p.
 *
 * Orders on stdin, one per line, fields by blanks; "-" is an empty hex string; patch is "-" or OFFSET:KIND:BASE
 * with KIND b8 (big-endian u64) or l4 (little-endian u32), value BASE + n:
 *   flow|call SIZE WARM_S MEASURE_S WINDOW_MESSAGES WINDOW_BYTES PATIENCE_S PIDS
 *       PATIENCE_S without a delivery is a loss; PIDS of the broker by commas, or -, to read its CPU time
 *   pub FD PROTOCOL
 *   route PUB PREFIX SUFFIX PATCH              message n of a publisher takes route n % routes
 *   sub FD PROTOCOL PUB FIRST STRIDE PREFIX SUFFIX PATCH   expects n = FIRST, FIRST + STRIDE, ...
 * "call" takes two publishers and two subscribers: 0 asks, 1 answers, a hop each.
 * For D-Bus the PREFIX of a sub is its object path.
 *
 * One line of JSON on stdout. Exit 0: every message arrived once, whole and in order. 3: it did not, and
 * "fault" says which: lost (never came), gap (lost or overtaken), duplicate, altered, refused, closed. 2: wrong
 * orders.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ENDS = 32, ROUTES = 64, PIDS = 16, CHUNK = 128 * 1024, READ = 256 * 1024, CALLS = 1 << 20 };
enum { AFTERMATH_MS = 20 };

struct piece { uint8_t *data; size_t len; };
struct patch { long at; int width; uint64_t base; };
struct frame { struct piece prefix, suffix; struct patch patch; size_t len; };

struct end {
    int fd;
    char protocol;               /* r(mp) R(edis) n(ats) m(qtt) z(mtp) d(bus) */
    struct frame routes[ROUTES]; /* publisher */
    int route_count;
    uint64_t sent;
    uint8_t *out;
    size_t out_at, out_len;
    int pong_due;
    struct frame expected;       /* subscriber */
    int pub;
    uint64_t next, stride, first;
    uint8_t *in;
    size_t in_at, in_len;
    struct piece learned;        /* D-Bus: the last header that was checked field by field */
};

static struct end pubs[ENDS], subs[ENDS];
static int pub_count, sub_count, pids[PIDS], pid_count;
static size_t size, window_messages, window_bytes, buffer_size;
static double warm_s, measure_s;
static int patience_ms;
static uint8_t *pattern;

static void fault(const char *kind, const char *format, ...) {
    va_list arguments;
    printf("{\"fault\": \"%s\", \"detail\": \"", kind);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\"}\n");
    exit(3);
}

static void wrong(const char *what) {
    fprintf(stderr, "lg: %s\n", what);
    exit(2);
}

static void *room(size_t bytes) {
    void *made = malloc(bytes + 1);
    if (!made) wrong("out of memory");
    return made;
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

/* Nanoseconds that all threads of the broker have run. */
static uint64_t broker_ns(void) {
    uint64_t sum = 0;
    for (int i = 0; i < pid_count; i++) {
        char path[320];
        snprintf(path, sizeof path, "/proc/%d/task", pids[i]);
        DIR *tasks = opendir(path);
        if (!tasks) fault("closed", "the broker is gone");
        for (struct dirent *task; (task = readdir(tasks));) {
            if (task->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pids[i], task->d_name);
            FILE *file = fopen(path, "r");
            unsigned long long ran = 0;
            if (file && fscanf(file, "%llu", &ran) == 1) sum += ran;
            if (file) fclose(file);
        }
        closedir(tasks);
    }
    return sum;
}

/* --- frames ------------------------------------------------------------------------------------------ */

static const uint8_t *fill(int pub, uint64_t n) { return pattern + ((n * 31 + (uint64_t)pub * 17) & 255); }

static void number_into(uint8_t *frame, const struct patch *patch, uint64_t n) {
    uint64_t value = patch->base + n;
    for (int i = 0; i < patch->width; i++)
        frame[patch->at + i] = (uint8_t)(patch->width == 8 ? value >> (56 - 8 * i) : value >> (8 * i));
}

static size_t put(const struct end *pub, int index, uint8_t *out) {
    const struct frame *frame = &pub->routes[pub->sent % (uint64_t)pub->route_count];
    memcpy(out, frame->prefix.data, frame->prefix.len);
    if (frame->patch.at >= 0) number_into(out, &frame->patch, pub->sent);
    uint8_t *payload = out + frame->prefix.len;
    memcpy(payload, &pub->sent, 8);
    memcpy(payload + 8, fill(index, pub->sent), size - 8);
    memcpy(payload + size, frame->suffix.data, frame->suffix.len);
    return frame->len;
}

static void check_payload(struct end *sub, const uint8_t *payload) {
    uint64_t n;
    memcpy(&n, payload, 8);
    if (n != sub->next) {
        int sent = n < pubs[sub->pub].sent && n % sub->stride == sub->first % sub->stride;
        fault(!sent ? "altered" : n < sub->next ? "duplicate" : "gap", "subscriber of publisher %d: message %llu came where %llu was due", sub->pub,
              (unsigned long long)n, (unsigned long long)sub->next);
    }
    if (memcmp(payload + 8, fill(sub->pub, n), size - 8))
        fault("altered", "message %llu of publisher %d: its payload", (unsigned long long)n, sub->pub);
    sub->next += sub->stride;
}

static uint32_t le32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Walk the header fields of a D-Bus signal: path as expected, body an array of bytes. */
static void check_dbus_header(const struct end *sub, const uint8_t *head, size_t fields) {
    size_t at = 16, end = 16 + fields;
    int path = 0, signature = 0;
    while (at < end) {
        at = (at + 7) & ~(size_t)7;
        if (at + 4 > end) break;
        uint8_t code = head[at], type = head[at + 2];
        if (head[at + 1] != 1 || head[at + 3]) fault("altered", "a D-Bus header field");
        at += 4;
        if (type == 'g') {
            signature |= code == 8 && head[at] == 2 && !memcmp(head + at + 1, "ay", 3);
            at += (size_t)head[at] + 2;
        } else if (type == 'u') {
            at = ((at + 3) & ~(size_t)3) + 4;
        } else {
            at = (at + 3) & ~(size_t)3;
            if (at + 4 > end) break;
            size_t length = le32(head + at);
            if (at + 4 + length > end) fault("altered", "a D-Bus header field's length");
            path |= code == 1 && length == sub->expected.prefix.len &&
                    !memcmp(head + at + 4, sub->expected.prefix.data, length);
            at += 4 + length + 1;
        }
    }
    if (!path || !signature) fault("altered", "a D-Bus signal without its path or signature");
}

/* Bytes of the D-Bus message at data, 0 if it is not all there. Deliveries are checked, the bus's own skipped. */
static size_t take_dbus(struct end *end, const uint8_t *data, size_t there, int delivers) {
    if (there < 16) return 0;
    if (data[0] != 'l') fault("altered", "a D-Bus message in another byte order");
    size_t body = le32(data + 4), fields = le32(data + 12), head = (16 + fields + 7) & ~(size_t)7;
    if (head + body > buffer_size) fault("altered", "a D-Bus message of %zu bytes", head + body);
    if (there < head + body) return 0;
    if (data[1] == 3) fault("refused", "the bus answered with an error");
    if (!delivers) return head + body;
    if (data[1] != 4 || body != 4 + size || le32(data + head) != size)
        fault("altered", "a D-Bus message of type %d with a body of %zu bytes", data[1], body);
    check_payload(end, data + head + 4);
    struct piece *learned = &end->learned;
    if (learned->len != head || memcmp(learned->data, data, 8) || memcmp(learned->data + 12, data + 12, head - 12)) {
        check_dbus_header(end, data, fields);
        free(learned->data);
        learned->data = room(head);
        learned->len = head;
        memcpy(learned->data, data, head);
    }
    return head + body;
}

/* A line that is not a message: 0 if it is not all there. */
static size_t take_nats_line(struct end *end, const uint8_t *data, size_t there) {
    const uint8_t *newline = memchr(data, '\n', there);
    if (!newline) return 0;
    if (!memcmp(data, "PING", 4)) end->pong_due = 1;
    else if (data[0] == '-') fault("refused", "nats answered %.*s", (int)(newline - data - 1), data);
    return (size_t)(newline - data) + 1;
}

static size_t take(struct end *sub, uint8_t *data, size_t there) {
    const struct frame *frame = &sub->expected;
    if (sub->protocol == 'd') return take_dbus(sub, data, there, 1);
    if (sub->protocol == 'n' && data[0] != 'M') return take_nats_line(sub, data, there);
    if (there < frame->len) return 0;
    uint64_t n = sub->next;
    check_payload(sub, data + frame->prefix.len);
    if (frame->patch.at >= 0) {
        uint8_t expected[8];
        struct patch here = {0, frame->patch.width, frame->patch.base};
        number_into(expected, &here, n);
        if (memcmp(data + frame->patch.at, expected, (size_t)frame->patch.width))
            fault("altered", "message %llu: its number in the header", (unsigned long long)n);
        memset(data + frame->patch.at, 0, (size_t)frame->patch.width);
    }
    if (memcmp(data, frame->prefix.data, frame->prefix.len) ||
        memcmp(data + frame->prefix.len + size, frame->suffix.data, frame->suffix.len))
        fault("altered", "message %llu: what is around its payload", (unsigned long long)n);
    return frame->len;
}

/* --- sockets ------------------------------------------------------------------------------------------ */

static ssize_t read_some(struct end *end) {
    if (end->in_at) {
        memmove(end->in, end->in + end->in_at, end->in_len);
        end->in_at = 0;
    }
    ssize_t got = read(end->fd, end->in + end->in_len, buffer_size - end->in_len);
    if (got > 0) end->in_len += (size_t)got;
    else if (got == 0 || (errno != EAGAIN && errno != EINTR)) fault("closed", "the broker closed a connection");
    return got;
}

static void pong(struct end *end) {
    if (!end->pong_due) return;
    end->pong_due = 0;
    if (write(end->fd, "PONG\r\n", 6) != 6) fault("closed", "a PONG was not taken");
}

static void receive(struct end *sub) {
    read_some(sub);
    while (sub->in_len) {
        size_t used = take(sub, sub->in + sub->in_at, sub->in_len);
        if (!used) break;
        sub->in_at += used;
        sub->in_len -= used;
    }
    pong(sub);
}

/* What a broker says to a publisher: nothing but upkeep. */
static void listen_to(struct end *pub) {
    read_some(pub);
    if (pub->protocol == 'z') pub->in_len = 0; /* subscriptions that the proxy passes on */
    while (pub->in_len) {
        uint8_t *data = pub->in + pub->in_at;
        size_t used = 0;
        if (pub->protocol == 'n') used = take_nats_line(pub, data, pub->in_len);
        else if (pub->protocol == 'd') used = take_dbus(pub, data, pub->in_len, 0);
        else {
            char text[161];
            size_t length = pub->in_len < 160 ? pub->in_len : 160;
            for (size_t i = 0; i < length; i++)
                text[i] = data[i] >= ' ' && data[i] < 127 && data[i] != '"' && data[i] != '\\' ? (char)data[i] : '.';
            text[length] = 0;
            fault("refused", "the broker told a publisher: %s", text);
        }
        if (!used) break;
        pub->in_at += used;
        pub->in_len -= used;
    }
}

/* Write what the window allows; frames are gathered so that a slow broker does not make us slow as well. */
static void transmit(struct end *pub, int index, uint64_t allowed) {
    if (pub->out_at == pub->out_len) {
        pub->out_at = pub->out_len = 0;
        pong(pub);
        while (allowed-- && (!pub->out_len || pub->out_len + pub->routes[0].len <= CHUNK)) {
            pub->out_len += put(pub, index, pub->out + pub->out_len);
            pub->sent++;
        }
    }
    ssize_t wrote = write(pub->fd, pub->out + pub->out_at, pub->out_len - pub->out_at);
    if (wrote > 0) pub->out_at += (size_t)wrote;
    else if (wrote < 0 && errno != EAGAIN && errno != EINTR) fault("closed", "the broker does not take any more");
}

/* Messages of this publisher that everybody has. */
static uint64_t complete(int pub) {
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < sub_count; i++)
        if (subs[i].pub == pub && subs[i].next < least) least = subs[i].next;
    return least;
}

static uint64_t deliveries(void) {
    uint64_t sum = 0;
    for (int i = 0; i < sub_count; i++) sum += (subs[i].next - subs[i].first) / subs[i].stride;
    return sum;
}

static uint64_t allowed(int pub, uint64_t window) {
    uint64_t done = complete(pub), way = pubs[pub].sent > done ? pubs[pub].sent - done : 0;
    return way < window ? window - way : 0;
}

/* One turn: wait until something moves, then move it. Returns 0 when nothing did within the time. */
static int turn(uint64_t window, int timeout_ms) {
    struct pollfd wanted[2 * ENDS];
    uint64_t room_for[ENDS];
    for (int i = 0; i < sub_count; i++) wanted[i] = (struct pollfd){subs[i].fd, POLLIN, 0};
    for (int i = 0; i < pub_count; i++) {
        room_for[i] = window ? allowed(i, window) : 0;
        int writes = room_for[i] || pubs[i].out_at < pubs[i].out_len || pubs[i].pong_due;
        wanted[sub_count + i] = (struct pollfd){pubs[i].fd, (short)(POLLIN | (writes ? POLLOUT : 0)), 0};
    }
    int moved = poll(wanted, (nfds_t)(sub_count + pub_count), timeout_ms);
    if (moved <= 0) return errno == EINTR && moved < 0;
    for (int i = 0; i < sub_count; i++)
        if (wanted[i].revents) receive(&subs[i]);
    for (int i = 0; i < pub_count; i++) {
        short events = wanted[sub_count + i].revents;
        if (events & (POLLIN | POLLHUP | POLLERR)) listen_to(&pubs[i]);
        if (events & POLLOUT) transmit(&pubs[i], i, room_for[i]);
    }
    return 1;
}

/* Everything sent has arrived, and nothing comes after it. */
static void settle(void) {
    for (int i = 0; i < sub_count; i++) {
        while (subs[i].next < pubs[subs[i].pub].sent)
            if (!turn(0, patience_ms))
                fault("lost", "message %llu of publisher %d never came", (unsigned long long)subs[i].next, subs[i].pub);
    }
    while (turn(0, AFTERMATH_MS)) {
    }
    for (int i = 0; i < sub_count; i++)
        if (subs[i].in_len) fault("altered", "bytes after the last message");
}

static void flow(void) {
    size_t frame = pubs[0].routes[0].len;
    uint64_t window = window_messages < window_bytes / frame ? window_messages : window_bytes / frame;
    window = window / (uint64_t)pub_count ? window / (uint64_t)pub_count : 1;
    int per_message = 0; /* subscribers of one message */
    for (int i = 0; i < sub_count; i++) per_message += subs[i].pub == 0 && subs[i].first == 0;
    double start = now(), begin = 0, end = 0;
    uint64_t before = 0, after = 0, cpu = 0;
    for (;;) {
        double at = now();
        if (!begin && at >= start + warm_s) {
            cpu = broker_ns();
            before = deliveries();
            begin = now();
        }
        if (begin && at >= begin + measure_s) {
            end = now();
            cpu = broker_ns() - cpu;
            after = deliveries();
            break;
        }
        if (!turn(window, patience_ms)) fault("lost", "nothing moves, %llu deliveries", (unsigned long long)deliveries());
    }
    settle();
    double messages = (double)(after - before) / per_message;
    if (messages < 1) fault("lost", "not one message in the time");
    printf("{\"messages\": %.0f, \"seconds\": %.6f, \"per_s\": %.1f, \"cpu_us\": %.4f, \"window\": %llu}\n", messages,
           end - begin, messages / (end - begin), (double)cpu / messages / 1e3, (unsigned long long)window);
}

static void hop(int which) {
    struct end *sub = &subs[which];
    uint64_t due = sub->next + sub->stride;
    transmit(&pubs[which], which, 1);
    while (sub->next != due)
        if (!turn(0, patience_ms)) fault("lost", "message %llu never came", (unsigned long long)sub->next);
}

static int by_value(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void call(void) {
    double *taken = room(CALLS * sizeof *taken), start = now(), begin = 0;
    uint64_t cpu = 0;
    size_t count = 0;
    for (;;) {
        double at = now();
        if (!begin && at >= start + warm_s) {
            cpu = broker_ns();
            begin = at = now();
        }
        if (begin && (at >= begin + measure_s || count == CALLS)) break;
        hop(0);
        hop(1);
        if (begin) taken[count++] = now() - at;
    }
    double ended = now();
    cpu = broker_ns() - cpu;
    settle();
    qsort(taken, count, sizeof *taken, by_value);
    printf("{\"calls\": %zu, \"per_s\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"cpu_us\": %.3f}\n", count,
           (double)count / (ended - begin), taken[count / 2] * 1e6, taken[count * 99 / 100] * 1e6,
           (double)cpu / (double)count / 1e3);
}

/* --- orders ------------------------------------------------------------------------------------------- */

static struct piece bytes_of(const char *hex) {
    struct piece made = {NULL, 0};
    if (!hex) wrong("a field is missing");
    size_t digits = strcmp(hex, "-") ? strlen(hex) : 0;
    made.data = room(digits / 2);
    for (; made.len < digits / 2; made.len++) {
        unsigned value;
        if (sscanf(hex + 2 * made.len, "%2x", &value) != 1) wrong("not hexadecimal");
        made.data[made.len] = (uint8_t)value;
    }
    return made;
}

static char *field(char **rest) {
    char *found = strsep(rest, " \n");
    if (!found || !*found) wrong("a field is missing");
    return found;
}

static struct frame frame_of(char **rest, int zero) {
    struct frame made = {.patch = {-1, 0, 0}};
    made.prefix = bytes_of(field(rest));
    made.suffix = bytes_of(field(rest));
    char *patch = field(rest);
    if (strcmp(patch, "-")) {
        char kind;
        unsigned long long base;
        if (sscanf(patch, "%ld:%c%d:%llu", &made.patch.at, &kind, &made.patch.width, &base) != 4) wrong("patch");
        if (made.patch.at < 0 || (size_t)(made.patch.at + made.patch.width) > made.prefix.len) wrong("patch");
        made.patch.base = base;
        if (zero) memset(made.prefix.data + made.patch.at, 0, (size_t)made.patch.width);
    }
    made.len = made.prefix.len + size + made.suffix.len;
    return made;
}

static void buffers(struct end *end) {
    end->in = room(buffer_size);
    end->out = room(buffer_size);
}

int main(void) {
    char *line = NULL, mode = 0;
    size_t capacity = 0;
    while (getline(&line, &capacity, stdin) > 0) {
        char *rest = line, *word = field(&rest);
        if (!strcmp(word, "flow") || !strcmp(word, "call")) {
            mode = word[0];
            size = strtoul(field(&rest), NULL, 10);
            warm_s = strtod(field(&rest), NULL);
            measure_s = strtod(field(&rest), NULL);
            window_messages = strtoul(field(&rest), NULL, 10);
            window_bytes = strtoul(field(&rest), NULL, 10);
            patience_ms = (int)(strtod(field(&rest), NULL) * 1e3);
            buffer_size = READ + 2 * size + CHUNK;
            char *all = field(&rest);
            for (char *one; (one = strsep(&all, ",")) && *one != '-';) {
                if (pid_count == PIDS) wrong("too many processes");
                pids[pid_count++] = atoi(one);
            }
        } else if (!strcmp(word, "pub") && pub_count < ENDS) {
            struct end *pub = &pubs[pub_count++];
            pub->fd = atoi(field(&rest));
            pub->protocol = *field(&rest);
            buffers(pub);
        } else if (!strcmp(word, "route")) {
            int which = atoi(field(&rest));
            if (which < 0 || which >= pub_count || pubs[which].route_count >= ROUTES) wrong("route");
            pubs[which].routes[pubs[which].route_count++] = frame_of(&rest, 0);
        } else if (!strcmp(word, "sub") && sub_count < ENDS) {
            struct end *sub = &subs[sub_count++];
            sub->fd = atoi(field(&rest));
            sub->protocol = *field(&rest);
            sub->pub = atoi(field(&rest));
            sub->next = sub->first = strtoul(field(&rest), NULL, 10);
            sub->stride = strtoul(field(&rest), NULL, 10);
            sub->expected = frame_of(&rest, 1);
            buffers(sub);
        } else {
            wrong("unknown order");
        }
    }
    if (!mode || size < 16 || !pub_count || !sub_count) wrong("orders are missing");
    if (mode == 'c' && (pub_count != 2 || sub_count != 2)) wrong("a call has two ends");
    pattern = room(size + 256);
    uint64_t state = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < size + 256; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        pattern[i] = (uint8_t)(state >> 32);
    }
    if (mode == 'c') call();
    else flow();
    return 0;
}
