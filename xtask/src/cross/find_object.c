/* libgcc's unwinder, as Debian builds it, asks glibc in which loaded object an address is (`_dl_find_object`). musl has
   no such function. In a static program the answer is always the program itself. */
#include <elf.h>
#include <stddef.h>

struct found {
  unsigned long long flags;
  const void *start, *end, *link_map, *eh_frame_header;
};

extern const Elf64_Ehdr __ehdr_start; /* these two are the linker's */
extern const char _end[];

int _dl_find_object(const void *address, struct found *found) {
  const char *begin = (const char *)&__ehdr_start;
  const char *base = __ehdr_start.e_type == ET_DYN ? begin : NULL;
  const Elf64_Phdr *header = (const Elf64_Phdr *)(begin + __ehdr_start.e_phoff);
  for (int i = 0; i < __ehdr_start.e_phnum; i++) {
    if (header[i].p_type == PT_GNU_EH_FRAME) {
      *found = (struct found){0, begin, _end, NULL, base + header[i].p_vaddr};
      return 0;
    }
  }
  return -1;
}
