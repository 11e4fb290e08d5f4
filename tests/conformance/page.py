def as_text(results):
    out=[]
    for r in results:
        out.append(f"{r.subject:15} {r.case:36} {r.verdict:7} {r.text}")
    return "\n".join(out)+"\n"
def write(results): pass
