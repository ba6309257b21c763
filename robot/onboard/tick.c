/* Control periods without the interpreter: observe, decide, filter, command (`tick_decide`), then wait for the deadline, read the
   robot's answer, and so on until somebody has to be asked (`tick_run`). The same arithmetic as `robot.contract`, `robot.safety` and
   `robot.onboard.loop`, which a test holds it to; where anything is out of the ordinary it sends nothing, says so, and the loop in
   Python takes the same state from there. The network and the filter are libraries of their own, called through pointers.
   A robot that only Python can talk to (a motor bus) has fd -1: Python then reads and sends, between `tick_wait` and
   `tick_account`, and between `tick_decide` and `tick_sent`.
   `robot/onboard/tick_record.py` has the record below, too; both list the same fields in the same order. */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { DONE = 0, CLOSED = 1, SILENT = 2, OTHER = 3, OVER = 4, OBSERVATION = 5, STRANGE = 6, ACTION = 7, FILTER = 8, STALE = 9 };
enum { SUCCESS = 4, PHASE_WIDTH = 2 };

struct tick {
    /* time, and what is counted */
    int64_t period_ns, late_ns, deadline_ns, woken_ns, ready_ns, sent_ns, fresh_ns;
    int64_t missed, missed_by_robot, missed_by_system, periods, steps, success_steps, late_states, strange_in_a_row;
    int64_t changed[5], totals[5];
    double reward_sum, copper_j, strangeness_max, before_s, time_s, late_age_s, stale_age_s, dt_s;
    /* the link */
    int64_t fd, timeout_ms, patience_ms, frame_room, frame_size, head_size, flags_at, time_at, reward_at, rewards, out_size, out_at;
    uint8_t *frame, *out;
    const uint8_t *head;
    /* until when periods follow each other in here: a byte in wake_fd (-1: after each), the run's end, a state that C does not answer */
    int64_t wake_fd, end_ns, unanswered;
    /* observation: values is the state's numbers, then tips, gravity, phases, previous action */
    int64_t numbers, joints, tips, depth, elements, histories, phases, started;
    int64_t q_at, qd_at, target_at, current_at, currents, temperature_at, temperatures, force_at, forces;
    int64_t quat_at, gravity_at, tips_at, phase_at, action_at;
    double *values, *wide, *past;
    const int64_t *plus, *minus, *history, *chain;
    const double *moves, *fixed, *fixed_a, *fixed_aa, *origin, *offset, *phase_s, *mean, *spread, *ohm;
    double strange_limit, strange_cap;
    int64_t strange_ticks;
    float *observation;
    /* the network */
    void (*act)(const float *w, float *io);
    const float *weights;
    float *io, *net_observation, *net_actions, *net_in, *net_out;
    int64_t actions, recurrent;
    /* command and filter: rows target, previous, q, qd, out */
    int64_t relative;
    const int64_t *moved;
    const double *scale, *shift, *lower, *upper, *home;
    int64_t (*filter)(double *io, const double *bound, int64_t *count, int64_t n, double share, double ahead);
    double *rows, *asked;
    const double *bound;
    double share, ahead;
    /* what the policy chose: its mean, and noise where it explores */
    float *chosen;
    const double *noise, *std;
    /* what a decision was like, until it is sent */
    double score, age_s;
    int64_t in_a_row, took_ns;
    /* experience: rows of a chunk, whole ones only */
    int64_t row_room, row_count, row_start_ns;
    float *row_observation, *row_action, *row_reward, *row_log_prob;
    uint8_t *row_success;
    double *row_time_s, log_prob;
    /* rings of times, and the flight recorder */
    int64_t ring_room, ring_count[3];
    int64_t *ring[3];
    uint8_t *flight;
    uint64_t *flight_count;
    int64_t flight_room, flight_item, flight_at[16];
    uint8_t flight_mode, flight_no_fault;
};
enum { LATENCY, INFERENCE, LATENESS };

int64_t tick_size(void) { return sizeof(struct tick); }

static int64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void sleep_until(int64_t deadline_ns) {
    const struct timespec t = {deadline_ns / 1000000000, deadline_ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0) == EINTR) {}
}

static void note(struct tick *t, int which, int64_t ns) { t->ring[which][t->ring_count[which]++ % t->ring_room] = ns; }

/* Exactly size bytes. */
static int take(const struct tick *t, uint8_t *to, int64_t size, int64_t timeout_ms) {
    const uint8_t *start = to;
    while (size > 0) {
        const ssize_t got = recv(t->fd, to, size, MSG_DONTWAIT);
        if (got > 0) {
            to += got;
            size -= got;
        } else if (got == 0) {
            return CLOSED;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd p = {(int)t->fd, POLLIN, 0};
            if (poll(&p, 1, (int)timeout_ms) == 0) return to == start ? SILENT : CLOSED; /* amid a message: it is broken */
        } else if (errno != EINTR) {
            return CLOSED;
        }
    }
    return DONE;
}

/* Sleep until the next deadline that can still be met. */
void tick_wait(struct tick *t) {
    const int64_t now = now_ns(CLOCK_MONOTONIC);
    if (now > t->deadline_ns) { /* deciding took too long */
        const int64_t skipped = (now - t->deadline_ns) / t->period_ns + 1;
        t->missed += skipped;
        t->deadline_ns += skipped * t->period_ns;
    }
    sleep_until(t->deadline_ns);
    t->woken_ns = now_ns(CLOCK_MONOTONIC);
    note(t, LATENESS, t->woken_ns > t->deadline_ns ? t->woken_ns - t->deadline_ns : 0);
}

/* The step as experience; Python makes room before. */
static void record(struct tick *t, int success) {
    const int64_t i = t->row_count;
    if (i >= t->row_room) return;
    if (i == 0) t->row_start_ns = now_ns(CLOCK_REALTIME);
    memcpy(t->row_observation + i * t->elements, t->observation, 4 * t->elements);
    memcpy(t->row_action + i * t->actions, t->chosen, 4 * t->actions);
    for (int64_t k = 0; k < t->rewards; k++) t->row_reward[i * t->rewards + k] = (float)t->values[t->reward_at + k];
    t->row_log_prob[i] = (float)t->log_prob;
    t->row_success[i] = success != 0;
    t->row_time_s[i] = t->before_s;
    t->row_count++;
}

/* What the answer, now in `values`, tells of the step it ends. */
void tick_account(struct tick *t, double time_s, int64_t success) {
    int64_t now = now_ns(CLOCK_MONOTONIC);
    record(t, success != 0);
    if (time_s > t->before_s) t->fresh_ns = t->sent_ns > now - t->period_ns ? t->sent_ns : now - t->period_ns;
    t->before_s = time_s;
    double heat_w = 0.0;
    for (int64_t i = 0; i < t->currents; i++) {
        const double amps = t->values[t->current_at + i];
        const double warm = t->temperatures ? 1.0 + 0.00393 * (t->values[t->temperature_at + i] - 25.0) : 1.0;
        heat_w += amps * (t->ohm[i] * warm * amps);
    }
    t->copper_j += heat_w * t->dt_s;
    t->steps++;
    t->success_steps += success != 0;
    double reward = 0.0;
    for (int64_t i = 0; i < t->rewards; i++) reward += t->values[t->reward_at + i];
    t->reward_sum += reward;
    if (now > t->deadline_ns + t->late_ns) { /* too late for this period: woken too late, or the answer came too late */
        const int64_t skipped = (now - t->deadline_ns) / t->period_ns + 1;
        t->missed += skipped;
        *(t->woken_ns - t->deadline_ns > now - t->woken_ns ? &t->missed_by_system : &t->missed_by_robot) += skipped; /* who took longer */
        t->deadline_ns += skipped * t->period_ns;
        sleep_until(t->deadline_ns);
        now = now_ns(CLOCK_MONOTONIC);
    }
    t->ready_ns = now;
}

/* Wait for the deadline, read the answer from the link and account for the step it ends. */
static int64_t read_answer(struct tick *t) {
    tick_wait(t);
    uint32_t size;
    int code = take(t, (uint8_t *)&size, sizeof size, t->patience_ms);
    if (code) return code;
    t->frame_size = size;
    if (size == 0 || (int64_t)size > t->frame_room) return OTHER; /* nothing more was read: the link refuses the length */
    if (take(t, t->frame, size, t->timeout_ms)) return CLOSED;
    const uint8_t flags = t->frame[t->flags_at];
    /* all that comes before the numbers is as it was, but for flags and time */
    if ((int64_t)size < t->head_size + 8 * t->numbers || (flags & ~SUCCESS)) return OVER;
    if (memcmp(t->frame, t->head, t->flags_at) || memcmp(t->frame + t->flags_at + 1, t->head + t->flags_at + 1, t->time_at - t->flags_at - 1)
        || memcmp(t->frame + t->time_at + 8, t->head + t->time_at + 8, t->head_size - t->time_at - 8)) return OVER;
    double time_s;
    memcpy(&time_s, t->frame + t->time_at, 8);
    memcpy(t->values, t->frame + t->head_size, 8 * t->numbers);
    tick_account(t, time_s, flags & SUCCESS);
    return DONE;
}

/* Eq. 1 of robot.kinematics: from the tip back to the root, p <- R p + o. */
static void tips(struct tick *t) {
    const double *q = t->values + t->q_at;
    for (int64_t tip = 0; tip < t->tips; tip++) {
        double p[3] = {t->offset[3 * tip], t->offset[3 * tip + 1], t->offset[3 * tip + 2]};
        for (int64_t d = t->depth - 1; d >= 0; d--) {
            const int64_t at = d * t->tips + tip;
            const double angle = q[t->chain[at]] * t->moves[at], s = sin(angle), v = 1.0 - cos(angle);
            const double *f = t->fixed + 9 * at, *a = t->fixed_a + 9 * at, *b = t->fixed_aa + 9 * at, *o = t->origin + 3 * at;
            double next[3];
            for (int i = 0; i < 3; i++) {
                double sum = 0.0;
                for (int j = 0; j < 3; j++) sum += (f[3 * i + j] + s * a[3 * i + j] + v * b[3 * i + j]) * p[j];
                next[i] = sum + o[i];
            }
            memcpy(p, next, sizeof p);
        }
        memcpy(t->values + t->tips_at + 3 * tip, p, sizeof p);
    }
}

static int observe(struct tick *t) {
    double *v = t->values;
    if (t->tips) tips(t);
    if (t->gravity_at >= 0) {
        const double x = v[t->quat_at], y = v[t->quat_at + 1], z = v[t->quat_at + 2], w = v[t->quat_at + 3];
        v[t->gravity_at] = 2.0 * (w * y - x * z);
        v[t->gravity_at + 1] = -2.0 * (w * x + y * z);
        v[t->gravity_at + 2] = 2.0 * (x * x + y * y) - 1.0;
    }
    for (int64_t i = 0; i < t->phases; i++) {
        const double angle = 6.283185307179586 * t->time_s / t->phase_s[i];
        v[t->phase_at + PHASE_WIDTH * i] = sin(angle);
        v[t->phase_at + PHASE_WIDTH * i + 1] = cos(angle);
    }
    for (int64_t i = 0; i < t->elements; i++)
        t->wide[i] = t->plus[i] < 0 ? 0.0 : t->minus[i] < 0 ? v[t->plus[i]] : v[t->plus[i]] - v[t->minus[i]];
    const double *past = t->past;
    for (int64_t k = 0; k < t->histories; k++) { /* start, width, older values: newest first */
        const int64_t start = t->history[3 * k], n = t->history[3 * k + 1], older = t->history[3 * k + 2];
        for (int64_t i = 0; i < older; i++) t->wide[start + n + i] = t->started ? past[i] : t->wide[start + i % n];
        past += older;
    }
    int wrong = 0;
    for (int64_t i = 0; i < t->elements; i++) {
        t->observation[i] = (float)t->wide[i];
        wrong |= !isfinite(t->observation[i]);
    }
    return wrong;
}

static void remember(struct tick *t) {
    double *past = t->past;
    for (int64_t k = 0; k < t->histories; k++) {
        const int64_t start = t->history[3 * k], older = t->history[3 * k + 2];
        memcpy(past, t->wide + start, 8 * older); /* the newest and all older ones but the last */
        past += older;
    }
    t->started = 1;
    t->time_s += t->dt_s;
    for (int64_t i = 0; i < t->actions; i++) {
        const double a = t->chosen[i];
        t->values[t->action_at + i] = a < -1.0 ? -1.0 : a > 1.0 ? 1.0 : a;
    }
}

static void fill(uint8_t *row, const double *from, int64_t size, int64_t room) {
    const double nothing = NAN;
    for (int64_t i = 0; i < room; i++) memcpy(row + 8 * i, size ? from + i : &nothing, 8);
}

/* One period into the flight recorder: the fields of `robot.onboard.flight_ring.Layout.dtype` in their order. */
static void fly(struct tick *t, const double *target) {
    uint8_t *row = t->flight + (int64_t)(*t->flight_count % (uint64_t)t->flight_room) * t->flight_item;
    const int64_t *at = t->flight_at, utc_ns = now_ns(CLOCK_REALTIME);
    const double latency_us = (double)(t->sent_ns - t->ready_ns) * 1e-3;
    memcpy(row + at[0], &utc_ns, 8);
    memcpy(row + at[1], &t->before_s, 8);
    row[at[2]] = t->flight_mode;
    row[at[3]] = t->flight_no_fault;
    memset(row + at[4], 0, at[5] - at[4]);
    memcpy(row + at[5], &latency_us, 8);
    for (int k = 0; k < 5; k++) {
        const int32_t count = (int32_t)t->changed[k];
        memcpy(row + at[6] + 4 * k, &count, 4);
    }
    memcpy(row + at[7], t->values + t->q_at, 8 * t->joints);
    memcpy(row + at[8], t->values + t->qd_at, 8 * t->joints);
    fill(row + at[9], t->values + t->current_at, t->currents, (at[10] - at[9]) / 8);
    fill(row + at[10], t->values + t->temperature_at, t->temperatures, (at[11] - at[10]) / 8);
    fill(row + at[11], t->values + t->force_at, t->forces, (at[12] - at[11]) / 8);
    memcpy(row + at[12], t->observation, 4 * t->elements);
    memcpy(row + at[13], t->chosen, 4 * t->actions);
    memcpy(row + at[14], t->asked, 8 * t->joints);
    memcpy(row + at[15], target, 8 * t->joints);
    __atomic_store_n(t->flight_count, *t->flight_count + 1, __ATOMIC_RELEASE); /* the watcher reads rows below the count */
}

/* The target in the filter's last row is on its way. */
void tick_sent(struct tick *t) {
    double *out = t->rows + 4 * t->joints;
    t->sent_ns = now_ns(CLOCK_MONOTONIC);
    memcpy(t->rows + t->joints, out, 8 * t->joints);
    if (t->recurrent) memcpy(t->net_in, t->net_out, 4 * t->recurrent);
    remember(t);
    t->periods++;
    t->late_states += t->age_s > t->late_age_s;
    t->strange_in_a_row = t->in_a_row;
    if (t->score > t->strangeness_max) t->strangeness_max = t->score;
    for (int k = 0; k < 5; k++) t->totals[k] += t->changed[k];
    note(t, INFERENCE, t->took_ns);
    note(t, LATENCY, t->sent_ns - t->ready_ns);
    if (t->flight) fly(t, out);
}

/* Observe, decide, filter, command. Anything but DONE: nothing was sent and nothing but the observation changed. */
int64_t tick_decide(struct tick *t) {
    t->age_s = (double)(t->ready_ns - t->fresh_ns) * 1e-9;
    if (!(t->age_s <= t->stale_age_s)) return STALE;
    if (observe(t)) return OBSERVATION;
    t->score = 0.0;
    t->in_a_row = 0;
    if (t->mean) {
        double sum = 0.0;
        for (int64_t i = 0; i < t->elements; i++) {
            double z = fabs(((double)t->observation[i] - t->mean[i]) / t->spread[i]);
            z = z < t->strange_cap ? z : t->strange_cap;
            sum += z * z;
        }
        t->score = sqrt(sum / (double)t->elements);
        t->in_a_row = t->score > t->strange_limit ? t->strange_in_a_row + 1 : 0;
        if (t->in_a_row >= t->strange_ticks) return STRANGE;
    }
    const int64_t before_ns = now_ns(CLOCK_MONOTONIC);
    memcpy(t->net_observation, t->observation, 4 * t->elements);
    t->act(t->weights, t->io);
    t->took_ns = now_ns(CLOCK_MONOTONIC) - before_ns;
    double *target = t->rows, *q = t->rows + 2 * t->joints, *out = t->rows + 4 * t->joints;
    memcpy(t->asked, t->home, 8 * t->joints);
    for (int64_t i = 0; i < t->actions; i++) {
        t->chosen[i] = t->noise ? (float)(t->net_actions[i] + t->std[i] * t->noise[i]) : t->net_actions[i];
        double a = t->chosen[i];
        if (!isfinite(a)) return ACTION;
        a = a < -1.0 ? -1.0 : a > 1.0 ? 1.0 : a;
        double to = t->scale[i] * a;
        to += t->relative ? t->values[t->target_at + t->moved[i]] : t->shift[i];
        t->asked[t->moved[i]] = to < t->lower[i] ? t->lower[i] : to > t->upper[i] ? t->upper[i] : to;
    }
    memcpy(target, t->asked, 8 * t->joints); /* the row of the last target is what was sent last */
    memcpy(q, t->values + t->q_at, 8 * t->joints);
    memcpy(q + t->joints, t->values + t->qd_at, 8 * t->joints);
    if (t->filter(t->rows, t->bound, t->changed, t->joints, t->share, t->ahead)) return FILTER;
    if (t->fd < 0) return DONE; /* Python sends, and then says so */
    memcpy(t->out + t->out_at, out, 8 * t->joints);
    for (int64_t done = 0; done < t->out_size;) {
        const ssize_t put = send(t->fd, t->out + done, t->out_size - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put >= 0) {
            done += put;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd p = {(int)t->fd, POLLOUT, 0};
            if (poll(&p, 1, (int)t->patience_ms) == 0) { /* it has not even read what was sent before */
                if (done) shutdown(t->fd, SHUT_RDWR); /* half a message: the link is at its end */
                return SILENT;
            }
        } else if (errno != EINTR) {
            return CLOSED;
        }
    }
    tick_sent(t);
    return DONE;
}

/* Whether the interpreter has to be asked before the state in hand is answered. Python's own signal handler writes to wake_fd at once. */
static int to_be_asked(const struct tick *t) {
    char signals[16];
    if (t->wake_fd < 0 || recv((int)t->wake_fd, signals, sizeof signals, MSG_DONTWAIT) > 0) return 1;
    return t->ready_ns >= t->end_ns || (t->row_room && t->row_count >= t->row_room);
}

/* Wait for the deadline and read the answer, then decide and so on: until somebody has to be asked, or something is out of the ordinary. */
int64_t tick_run(struct tick *t) {
    t->unanswered = 0;
    for (;;) {
        const int64_t code = read_answer(t);
        if (code || to_be_asked(t)) return code;
        if (tick_decide(t)) {
            t->unanswered = 1;
            return DONE;
        }
        t->deadline_ns += t->period_ns;
    }
}

/* What a bare sleeper sees of this machine: `count` deadlines, how late it was woken at each [ns]. The floor under every loop here. */
void tick_sleep(int64_t start_ns, int64_t period_ns, int64_t count, int64_t *late_ns) {
    for (int64_t k = 0; k < count; k++) {
        const int64_t deadline_ns = start_ns + (k + 1) * period_ns;
        sleep_until(deadline_ns);
        late_ns[k] = now_ns(CLOCK_MONOTONIC) - deadline_ns;
    }
}
