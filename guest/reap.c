#include "reap.h"

#include <errno.h>
#include <sys/wait.h>

#include "session.h"

void reap_children(struct agent *agent)
{
    // SIGCHLD coalesces, so one signal may stand for many processes.
    for (;;) {
        struct rusage usage;
        int status;
        pid_t pid = wait4(-1, &status, WNOHANG, &usage);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid <= 0) {
            agent->childless = pid < 0;
            break;
        }
        session_reaped(agent, pid, status, &usage);
    }
    // The end of a descendant may empty a cgroup.
    for (struct session *session = agent->sessions; session; session = session->next)
        if (session->killed)
            session_settle(agent, session);
    agent->sweep = true;
}
