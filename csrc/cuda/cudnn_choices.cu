// cudnn_choices.cu: the quickest engines for convolutions, kept in a file of the user's cache. The file is a hint: whatever it holds, an answer only gets slower to find.
#include "cudnn.cuh"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <string>

namespace {

typedef std::map<std::string, int> Choices;
enum { MOST_BYTES = 1 << 20, MOST_LINE = 400, MOST_CHOICE = 99 };
const char HEADER[] = "libration cudnn choices 1\n";
Choices known;

// $XDG_CACHE_HOME/libration or ~/.cache/libration, made where it is missing; empty where there is none.
std::string folder()
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    std::string path;
    if (base && *base == '/') path = base;
    else if (home && *home) path = std::string(home) + "/.cache";
    else return path;
    for (const char *below : {"", "/libration"})
        if (mkdir((path += below).c_str(), 0755) && errno != EEXIST) return "";
    return path;
}

// Adds the lines "name=choice" of the file; what is no such line is left out.
void read_file(const std::string &path, Choices *all)
{
    FILE *f = fopen(path.c_str(), "rb");
    if (!f) return;
    std::string text(MOST_BYTES, '\0');
    text.resize(fread(&text[0], 1, MOST_BYTES, f));
    fclose(f);
    if (text.compare(0, sizeof HEADER - 1, HEADER)) return;
    for (size_t at = sizeof HEADER - 1, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
        const size_t equals = text.rfind('=', end);
        if (end - at > MOST_LINE || equals == std::string::npos || equals <= at || end - equals < 2 || end - equals > 3) continue;
        const std::string digits = text.substr(equals + 1, end - equals - 1);
        if (digits.find_first_not_of("0123456789") == std::string::npos) all->emplace(text.substr(at, equals - at), atoi(digits.c_str()));
    }
}

} // namespace

int lbr_cuda_choice(const char *name)
{
    static bool read;
    if (!read) {
        const std::string path = folder();
        if (!path.empty()) read_file(path + "/cudnn-choices.txt", &known);
        read = true;
    }
    auto found = known.find(name);
    return found == known.end() ? -1 : found->second;
}

// Another process may have written since: its lines are kept.
void lbr_cuda_keep_choice(const char *name, int choice)
{
    if (choice < 0 || choice > MOST_CHOICE || strlen(name) > MOST_LINE - 4 || strpbrk(name, "\n")) return;
    known[name] = choice;
    const std::string path = folder();
    if (path.empty()) return;
    const std::string file = path + "/cudnn-choices.txt", temporary = path + "/.tmp-" + std::to_string(getpid()) + "-cudnn-choices.txt";
    Choices all = known;
    read_file(file, &all);
    std::string text = HEADER;
    for (auto &one : all)
        if (text.size() + MOST_LINE < MOST_BYTES) text += one.first + "=" + std::to_string(one.second) + "\n";
    FILE *f = fopen(temporary.c_str(), "wb");
    if (!f) return;
    const bool whole = fwrite(text.data(), 1, text.size(), f) == text.size() && !fflush(f) && !fsync(fileno(f));
    if (fclose(f) || !whole || rename(temporary.c_str(), file.c_str())) unlink(temporary.c_str());
}
