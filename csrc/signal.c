/* signal.c: Ctrl-C, and for programs that clean up SIGTERM and SIGHUP, as a flag that long loops poll. Not a general signal facility. */
#include "core.h"

#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t flag, last;

static void on_interrupt(int number)
{
    if (flag) _exit(128 + number);
    flag = 1;
    last = number;
}

static void listen_to(int number)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

void lbr_interrupt_install(void) { listen_to(SIGINT); }

void lbr_interrupt_install_all(void)
{
    struct sigaction present;
    listen_to(SIGINT);
    listen_to(SIGTERM);
    if (sigaction(SIGHUP, NULL, &present) == 0 && present.sa_handler != SIG_IGN) listen_to(SIGHUP); /* nohup stays nohup */
}

int lbr_interrupt_signal(void) { return last; }

int lbr_interrupted(void) { return flag; }
void lbr_interrupt_clear(void) { flag = 0; }
