// The one process of an emulated board: runs each line of /commands, its words set apart by tabs, says
// how it ended and what it held in memory at most, and turns the machine off.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LONGEST_LINE = 4096, MOST_WORDS = 64 };

static void mounted(const char *kind, const char *folder) {
    mkdir(folder, 0755);
    mount(kind, folder, kind, 0, NULL);
}

static void run(char *line) {
    char *words[MOST_WORDS + 1];
    int count = 0;
    for (char *word = strtok(line, "\t"); word && count < MOST_WORDS; word = strtok(NULL, "\t"))
        words[count++] = word;
    words[count] = NULL;
    pid_t child = fork();
    if (child == 0) {
        execv(words[0], words);
        perror(words[0]);
        _exit(127);
    }
    int status = 0;
    struct rusage used = {0};
    wait4(child, &status, 0, &used);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    printf("\nboard: end %d %ld\n", code, used.ru_maxrss);
}

int main(void) {
    mounted("proc", "/proc");
    mounted("devtmpfs", "/dev");
    int console = open("/dev/console", O_RDWR);
    for (int stream = 0; stream < 3; stream++)
        dup2(console, stream);
    setvbuf(stdout, NULL, _IONBF, 0);

    char line[LONGEST_LINE];
    FILE *memory = fopen("/proc/meminfo", "r");
    if (memory && fgets(line, sizeof line, memory))
        printf("board: %s", line);
    FILE *commands = fopen("/commands", "r");
    while (commands && fgets(line, sizeof line, commands)) {
        line[strcspn(line, "\n")] = 0;
        printf("board: begin %s\n", line);
        run(line);
    }
    printf("board: off\n");
    reboot(RB_POWER_OFF);
    return 1;
}
