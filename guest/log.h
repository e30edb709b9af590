// Lines for people who look at the console. Never blocks on the reader, never changes errno.
#ifndef TRIO_SANDBOX_LOG_H
#define TRIO_SANDBOX_LOG_H

// As PID 1: write to the kernel's log from now on. Otherwise lines go to standard error.
void log_to_kernel(void);

// "%m" stands for the text of errno, as in syslog(3).
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2))); // shown on the console
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));  // kept in the kernel's log

#endif
