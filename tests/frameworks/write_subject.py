"""Write one model of a framework's file: ``python -I write_subject.py torch_models.py factory FOLDER``. Python >= 3.7.

Runs in the framework's environment and leaves FOLDER/subject.json: what to load, and what the framework itself answers to ``rows(3)``.
"""

import importlib.util
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def main(file, name, folder):
    sys.dont_write_bytecode = True  # these folders belong to another interpreter
    spec = importlib.util.spec_from_file_location(
        "foreign", os.path.join(os.path.dirname(HERE), "foreign", "run.py")
    )
    foreign = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(foreign)
    foreign.install_as_in_a_worker()
    sys.path.append(HERE)
    os.environ["OPEXEC_TEST_MODELS"] = os.path.dirname(folder)
    spec = importlib.util.spec_from_file_location(os.path.splitext(file)[0], os.path.join(HERE, file))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from subject import rows

    subject = module.SUBJECTS[name](folder)
    about = {key: getattr(subject, key) for key in "platform source options input output".split()}
    about["answer"] = subject.direct(rows(3)).tolist()
    with open(os.path.join(folder, "subject.json"), "w") as written:
        json.dump(about, written)


if __name__ == "__main__":
    main(*sys.argv[1:])
