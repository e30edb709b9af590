// The kind of session that FS opens: an operation on files, done by a helper process.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs_helper.h"
#include "fs_request.h"
#include "fs_result.h"
#include "input.h"
#include "session.h"

struct work {
    size_t received; // of the result
    struct fs_result result;
};

static void fail_user(struct agent *agent, struct session *session, const struct fs_result *result)
{
    char text[200];
    snprintf(text, sizeof text, "cannot become the user: %s", result->message);
    session_fail(agent, session, "user_setup_failed", result->error, text);
}

// The helper runs as somebody else than the agent, so what it says is checked like anything from outside.
static void make_proper(struct fs_result *result)
{
    result->message[sizeof result->message - 1] = '\0';
    result->path[sizeof result->path - 1] = '\0';
    result->target[sizeof result->target - 1] = '\0';
    if (result->error < 0)
        result->error = EIO;
    if (result->count < 0)
        result->count = 0;
}

static void status_ready(struct agent *agent, struct session *session)
{
    struct work *work = session->work;
    size_t wanted = sizeof work->result - work->received;
    ssize_t count = read(session->status.fd, (uint8_t *)&work->result + work->received, wanted);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count > 0)
        work->received += (size_t)count;
    if (count > 0 && (size_t)count < wanted)
        return;
    watch_close(agent, &session->status);
    if (work->received < sizeof work->result)
        return;
    make_proper(&work->result);
    if (work->result.no_user)
        fail_user(agent, session, &work->result);
    else
        input_write(agent, session); // which notices that nobody reads any more: STDIN_CLOSED comes before DONE
}

static struct mp_text text_of(const char *text)
{
    return (struct mp_text){text, strlen(text)};
}

// The helper ended without a word.
static void finish_silent(struct agent *agent, struct session *session)
{
    char message[64];
    struct done done = {.error = ECANCELED, .message = "ended before it was done"};
    if (!session->killed && agent->phase == PHASE_SERVING) {
        int signal = WIFSIGNALED(session->exit_status) ? WTERMSIG(session->exit_status) : SIGTERM;
        done.error = EIO;
        done.message = message;
        snprintf(message, sizeof message, "the helper process was ended by signal %d", signal);
    }
    session_finish_done(agent, session, &done);
}

static void finished(struct agent *agent, struct session *session, bool held)
{
    (void)held; // a helper has no children
    const struct work *work = session->work;
    if (work->received < sizeof work->result) {
        finish_silent(agent, session);
        return;
    }
    const struct fs_result *result = &work->result;
    struct done done = {
        .error = result->error,
        .message = result->message,
        .path = text_of(result->path),
        .count = result->count,
        .target = text_of(result->target),
        .status = result->has_status ? &result->status : NULL,
    };
    session_finish_done(agent, session, &done);
}

static void terminate(struct agent *agent, struct session *session)
{
    (void)agent;
    session_terminate(session); // not at once: it may have a temporary file to remove
}

static void release(struct agent *agent, struct session *session)
{
    (void)agent;
    free(session->work);
    session->work = NULL;
}

static const struct session_kind fs_kind = {
    .status_ready = status_ready,
    .kill = terminate,
    .finished = finished,
    .release = release,
    .is_helper = true,
};

static void launch(struct agent *agent, struct session *session, struct fs_request *request)
{
    struct spawn_plan plan = {.wants_stdin = fs_request_reads(request), .run = fs_help, .context = request};
    session->kind = &fs_kind;
    session->work = calloc(1, sizeof(struct work));
    session_set_windows(session, (uint32_t)request->window, (uint32_t)request->stdin_window);
    session_set_deadline(session, request->deadline_ms);
    if (!session->work)
        session_fail(agent, session, "out_of_memory", ENOMEM, "no memory for the result");
    else if (!session_launch(agent, session, &plan, SESSION_RUNNING))
        session_fail(agent, session, errno == EAGAIN || errno == ENOMEM ? "out_of_memory" : "other", errno,
                     "cannot start the helper process");
}

void fs_start(struct agent *agent, struct session *session, const uint8_t *body, size_t length)
{
    const char *problem;
    struct fs_request *request = fs_request_decode(body, length, &problem);
    if (!request)
        session_fail(agent, session, problem ? "bad_args" : "out_of_memory", problem ? EINVAL : ENOMEM,
                     problem ? problem : "no memory for the request");
    else if (request->op == FS_UNKNOWN)
        session_finish_done(agent, session, &(struct done){.error = ENOSYS, .message = strerror(ENOSYS)});
    else
        launch(agent, session, request);
    free(request); // the helper has a copy
}
