"""The learning half: features, layers, published systems, training, and the weights that ship. Knows no event loop and no socket.

Sound becomes frames, frames become answers:
    features/    fronts: sound to frames, causally           layers/   what passes frames on, each with its state in the open
    encoders/    voice and words to vectors: ours, and pretrained ones
    zoo/         a system a file                             systems   what a system is, and how one is found
    tensors      what these hand to one another              live      a system with its fronts before it, as an engine runs it

A run, in the order in which it comes to pass:
    plan         what is trained on what, and how            data/     manifests, folds, takes, the cache of features
    runs         from a plan to a finished folder; it calls what follows
    examples     clips and texts with their features         batches   what is drawn of them; masking: what is done to a batch
    train        the steps; losses, optimise, checkpoint, and validation between epochs; acquaint: the half that knows speakers
    answers      what a system says of examples              judged    and of any manifest, some clips at a time
    calibrate    a temperature, by the validation speakers   enrolment which clips of a speaker are heard first
    results      the figures of a run; page: as HTML         measures  rows of figures by corpus; evaluate: the figures themselves
    saved        a trained system as one file                export    as ONNX, with int8 and onnx_files
    recipe       the shipped voice anew, by all of these     verdict   what its runs say together; trust: what confidence is worth
    words_run    the shipped texts' network                  both_run  what joins the two           weights/  what ships

Afterwards, from a few clips of somebody else's speech:
    adapt        shots, unlabelled speech, or both           refit     the layers that name the classes, the old ones as prior
    shots        which clips are fitted to                   delta     the file of what changed; deltas: of systems in torch
    sere_run     from one language's labels to another one's unlabelled speech; sere_loss: what is made small there
"""
