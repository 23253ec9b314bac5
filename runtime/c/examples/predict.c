// Asks a bundle what each text means, within 64 MiB: predict BUNDLE TEXT...

#include <stdio.h>
#include <stdlib.h>

#include "dram.h"

static int fail(const char *doing)
{
    fprintf(stderr, "%s: %s\n", doing, dram_last_error());
    return EXIT_FAILURE;
}

static size_t likeliest(const float *probabilities, size_t count)
{
    size_t best = 0;
    for (size_t label = 1; label < count; label++) {
        if (probabilities[label] > probabilities[best]) {
            best = label;
        }
    }
    return best;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s BUNDLE TEXT...\n", argv[0]);
        return EXIT_FAILURE;
    }
    dram_options options = {0};
    options.ram_bytes = 64u << 20;
    options.threads = 1;

    dram_session *session;
    if (dram_open(argv[1], &options, &session) != DRAM_STATUS_OK) {
        return fail("open");
    }
    size_t labels = dram_labels(session);
    float *probabilities = malloc((labels ? labels : 1) * sizeof *probabilities);
    int status = probabilities != NULL ? EXIT_SUCCESS : EXIT_FAILURE;
    for (int i = 2; i < argc && status == EXIT_SUCCESS; i++) {
        if (dram_predict_text(session, argv[i], probabilities, labels, NULL) != DRAM_STATUS_OK) {
            status = fail("predict");
        } else {
            size_t best = likeliest(probabilities, labels);
            printf("%s %.6f\n", dram_label(session, best), probabilities[best]);
        }
    }
    free(probabilities);
    dram_close(session);
    return status;
}
