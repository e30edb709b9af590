// The guest agent. As PID 1 it boots the sandbox, serves commands and powers the machine off; with `--fd N` it serves
// the same protocol on a descriptor of a host, for tests: no mounts, no cgroups, no identity. Called msb-event it is a
// program for the sandbox's own use.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent.h"
#include "boot.h"
#include "cgroup.h"
#include "clock.h"
#include "dispatch.h"
#include "event_command.h"
#include "event_server.h"
#include "freeze.h"
#include "identity.h"
#include "input.h"
#include "log.h"
#include "output.h"
#include "port.h"
#include "reap.h"
#include "root.h"
#include "session.h"
#include "shutdown.h"
#include "terminal.h"

#ifndef AGENT_VERSION
#define AGENT_VERSION "unknown"
#endif

enum {
    EVENTS = 64, // taken from epoll at once
    READS = 16,  // of the port, 4 KiB each: one largest frame, before its credit goes back and others get their turn
    ROUNDS = 16, // of reading output and writing it to the port, likewise
    OPEN_FILES = 16384,
    PORT_PATIENCE_MS = SILENCE_MAX_S * 1000,
};

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441 // Linux 5.11
#endif

static struct agent agent; // all zero, so that its buffers take no room in the file

static void take_frames(void)
{
    struct header header;
    const uint8_t *body;
    enum frame_fault fault;
    for (;;) {
        switch (parser_next(&agent.parser, &header, &body, &fault)) {
        case PARSED_FRAME:
            dispatch(&agent, &header, body);
            break;
        case PARSED_PART:
            return;
        case PARSED_FAULT: // where the next frame begins is unknown from here on, and no number of this one is to be
                           // trusted
            header.slot = 0;
            header.session = 0;
            agent_refuse(&agent, &header, frame_fault_code(fault), "the frame header is not valid; stopping");
            agent.port_interest = 0;
            watch_change(&agent, &agent.port, 0);
            agent.stream_broken = true;
            shutdown_begin(&agent, NS_PER_S, SIGTERM);
            return;
        }
    }
}

static bool control_is_backed_up(void)
{
    return agent.freeze != FREEZE_STILL && agent.outbox.lanes[LANE_CONTROL].size > CONTROL_PAUSE;
}

static void read_port(void)
{
    for (int i = 0; i < READS && !agent.hung_up && !agent.stream_broken && !control_is_backed_up(); i++) {
        size_t room;
        uint8_t *space = parser_space(&agent.parser, &room);
        ssize_t count = read(agent.port.fd, space, room);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (count <= 0) {
            shutdown_hang_up(&agent);
            return;
        }
        parser_filled(&agent.parser, (size_t)count);
        take_frames();
    }
}

// Asks for the port's events as far as they can be used: level-triggered, so nothing is missed.
static void choose_port_events(void)
{
    uint32_t interest = agent.stream_broken || control_is_backed_up() ? 0 : EPOLLIN;
    if (!outbox_is_empty(&agent.outbox) && agent.freeze != FREEZE_STILL)
        interest |= EPOLLOUT;
    if (agent.hung_up || interest == agent.port_interest)
        return;
    agent.port_interest = interest;
    watch_change(&agent, &agent.port, interest);
}

// True: there is more to do at once. False: all that is left waits for the port, for credit or for a command.
static bool move_output(void)
{
    bool more = true;
    if (agent.freeze != FREEZE_NOT) {
        if (!freeze_move(&agent))
            shutdown_hang_up(&agent);
        choose_port_events();
        return false;
    }
    for (int i = 0; i < ROUNDS && more && !agent.hung_up; i++) {
        output_pump(&agent);
        if (!outbox_send(&agent.outbox, agent.port.fd))
            shutdown_hang_up(&agent);
        more = agent.ready.first && outbox_bulk_room(&agent.outbox) > 0;
    }
    choose_port_events();
    return more && !agent.hung_up;
}

static void read_signals(void)
{
    struct signalfd_siginfo info;
    while (read(agent.signals.fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            reap_children(&agent);
        else // somebody in the sandbox asks PID 1 to end it, in one of the customary ways
            shutdown_begin(&agent, NS_PER_S, SIGTERM);
    }
}

static void handle(struct watch *watch, uint32_t events)
{
    if (watch->fd < 0)
        return; // closed by an earlier event of the same batch
    switch (watch->kind) {
    case WATCH_PORT:
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            read_port();
        if (events & (EPOLLHUP | EPOLLERR) && !(agent.port_interest & EPOLLIN))
            shutdown_hang_up(&agent);
        break;
    case WATCH_SIGNALS:
        read_signals();
        break;
    case WATCH_STATUS:
        session_status_ready(&agent, watch->session);
        break;
    case WATCH_INPUT:
        input_ready(&agent, watch->session, events);
        break;
    case WATCH_OUTPUT:
        output_ready(&agent, (struct output *)watch);
        break;
    case WATCH_DISCARD:
        output_discard_ready(&agent, (struct output *)watch);
        break;
    case WATCH_EMITTERS:
        event_server_ready(&agent);
        break;
    case WATCH_LISTENER:
        event_listener_ready(&agent, watch, events);
        break;
    }
}

static uint64_t earlier(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

static int wait_for_events(struct epoll_event events[EVENTS], bool at_once)
{
    uint64_t now = clock_now(), left = 0;
    uint64_t deadline = earlier(earlier(sessions_deadline(&agent), agent.deadline), output_deadline(&agent));
    deadline = earlier(deadline, event_server_deadline());
    if (!at_once && deadline > now)
        left = earlier(deadline - now, 60 * NS_PER_S);
    struct timespec patience = {.tv_sec = (time_t)(left / NS_PER_S), .tv_nsec = (long)(left % NS_PER_S)};
    return (int)syscall(SYS_epoll_pwait2, agent.epoll, events, EVENTS, &patience, NULL, (size_t)0);
}

static void run(void)
{
    bool at_once = true;
    while (agent.phase != PHASE_DONE) {
        struct epoll_event events[EVENTS];
        int count = wait_for_events(events, at_once);
        for (int i = 0; i < count; i++)
            handle(events[i].data.ptr, events[i].events);
        uint64_t now = clock_now();
        if (agent.phase <= PHASE_SERVING && now >= agent.deadline) { // one that serves has a deadline when it is frozen
            log_error("no %s within %d s", agent.phase == PHASE_WAITING ? "CONFIGURE" : "IDENTIFY", SILENCE_MAX_S);
            agent_power_off(&agent, 1);
        }
        sessions_tick(&agent, now);
        at_once = event_server_pump(&agent, now);
        at_once |= move_output();
        enum phase phase = agent.phase;
        shutdown_tick(&agent, now);
        at_once |= agent.phase != phase; // what that left to be sent waits for no event
        sessions_sweep(&agent);
    }
}

static void set_up_loop(void)
{
    sigset_t signals;
    sigfillset(&signals);
    sigprocmask(SIG_SETMASK, &signals, NULL);
    int fd;
    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= STDERR_FILENO)
        ; // 0, 1 and 2 are taken from here on
    if (fd >= 0)
        close(fd);
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGPWR);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGUSR2);
    agent.epoll = epoll_create1(EPOLL_CLOEXEC);
    agent.signals = (struct watch){.kind = WATCH_SIGNALS, .fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK)};
    agent.proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    agent.terminals = terminal_device(agent.is_init); // without it, terminals alone are what cannot be had
    if (agent.epoll < 0 || agent.signals.fd < 0 || !watch_open(&agent, &agent.signals, EPOLLIN))
        agent_boot_failed(&agent, "agent", errno, "epoll or signalfd");
    getrlimit(RLIMIT_NOFILE, &agent.open_files);
    struct rlimit more = {OPEN_FILES, OPEN_FILES};
    if (setrlimit(RLIMIT_NOFILE, &more) != 0)
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){agent.open_files.rlim_max, agent.open_files.rlim_max});
    if (!ring_reserve(&agent.outbox.lanes[LANE_BULK], 2 * BULK_MAX, BULK_HARD_MAX) ||
        !ring_reserve(&agent.outbox.lanes[LANE_CONTROL], 2 * CONTROL_PAUSE, CONTROL_MAX))
        agent_boot_failed(&agent, "agent", ENOMEM, "no memory for the queues");
}

static void boot_step(const char *stage, const char *problem)
{
    if (problem)
        agent_boot_failed(&agent, stage, errno, problem);
    agent_note_time(&agent, stage);
}

static void boot(void)
{
    boot_step("mounts", boot_mount());
    log_to_kernel();
    set_up_loop();
    boot_step("modules", boot_load_modules());
    boot_step("priority", boot_priority());
    agent.port.fd = port_open(PORT_PATIENCE_MS);
    boot_step("port", agent.port.fd < 0 ? "the host did not open the port" : NULL);
    boot_step("loopback", boot_loopback());
    agent.cgroups = cgroup_open_root("/sys/fs/cgroup");
    boot_step("cgroups", agent.cgroups < 0 ? "/sys/fs/cgroup" : NULL);
}

static void serve_on(const char *descriptor, const char *events)
{
    agent.port.fd = atoi(descriptor);
    if (agent.port.fd <= STDERR_FILENO || fcntl(agent.port.fd, F_SETFD, FD_CLOEXEC) != 0 ||
        fcntl(agent.port.fd, F_SETFL, O_RDWR | O_NONBLOCK) != 0) {
        log_error("--fd %s: not a descriptor to serve on: %m", descriptor);
        _exit(2);
    }
    set_up_loop();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (events && !event_server_open(&agent, events))
        log_error("--events %s: %m", events);
}

static void say_hello(void)
{
    struct utsname system;
    uname(&system);
    agent_note_time(&agent, "hello");
    struct message body = encode_hello(AGENT_VERSION, system.release);
    agent_send(&agent, HELLO, 0, 0, &body);
    agent.parser.direction = TO_GUEST;
    agent.port.kind = WATCH_PORT;
    agent.port_interest = EPOLLIN;
    if (!watch_open(&agent, &agent.port, EPOLLIN))
        agent_boot_failed(&agent, "agent", errno, "the port cannot be watched");
    // From now, not from the start: a clone of a machine that was slow to boot has the same time.
    agent.deadline = clock_now() + SILENCE_MAX_S * NS_PER_S;
}

int main(int argc, char **argv)
{
    if (event_command_is(argv[0]))
        return event_command(argc, argv);
    agent.started = clock_now();
    agent.is_init = getpid() == 1;
    agent.deadline = NEVER;
    agent.epoll = agent.proc = agent.cgroups = agent.terminals = agent.port.fd = -1;
    if (agent.is_init) {
        boot();
    } else if (argc == 3 && strcmp(argv[1], "--fd") == 0) {
        serve_on(argv[2], NULL);
    } else if (argc == 5 && strcmp(argv[1], "--fd") == 0 && strcmp(argv[3], "--events") == 0) {
        serve_on(argv[2], argv[4]);
    } else {
        log_error("this is PID 1 of a sandbox; for tests: %s --fd N [--events SOCKET]", argv[0]);
        return 2;
    }
    say_hello();
    run(); // from READY on nothing in here may end the agent: errors reset a session, are logged, and that is all

    identity_close_files();
    if (agent.is_init && !root_release())
        log_error("the disk is not read-only: %m");
    agent_send(&agent, GOODBYE, 0, 0, NULL);
    agent_flush(&agent, clock_now() + NS_PER_S);
    if (agent.is_init)
        agent_power_off(&agent, 0);
    sessions_clear(&agent);
    outbox_clear(&agent.outbox);
    return 0;
}
