/* signal.c: Ctrl-C as a flag that long loops poll. Not a general signal facility. */
#include "core.h"

#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t flag;

static void on_interrupt(int number)
{
    if (flag) _exit(128 + number);
    flag = 1;
}

void lbr_interrupt_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

int lbr_interrupted(void) { return flag; }
void lbr_interrupt_clear(void) { flag = 0; }
