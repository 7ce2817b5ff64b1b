/** The nine classes: the server's codes and labels, with the page's names, groups, meaning in colorectal cancer, and sources. */

import { CONTRACT } from "./contract.js";

/**
 * @typedef {object} Tissue
 * @property {string} code
 * @property {string} name short, for the page
 * @property {string} fullName MedMNIST's label
 * @property {keyof typeof GROUPS} group
 * @property {string} looks
 * @property {string} means
 * @property {(keyof typeof SOURCES)[]} sources
 */

export const GROUPS = {
  tumour: {
    title: "Tumour-related",
    text: "Tumour, or the tissue that a tumour builds around itself. Such areas decide grade and stage and should be seen by a pathologist.",
  },
  context: {
    title: "Depends on the surroundings",
    text: "These tissues occur in healthy and diseased bowel; the neighbouring tiles decide.",
  },
  normal: {
    title: "Normal parts of the bowel",
    text: "Nothing in these classes suggests a tumour. One tile without tumour says nothing about the rest of the slide.",
  },
  none: { title: "Not tissue", text: "There is nothing to judge." },
};

export const SOURCES = {
  kather: {
    cited: "Kather et al. 2019",
    title: "Predicting survival from colorectal cancer histology slides using deep learning: a retrospective multicenter study. PLoS Medicine 16(1): e1002730",
    doi: "10.1371/journal.pmed.1002730",
  },
  medmnist: {
    cited: "Yang et al. 2023",
    title: "MedMNIST v2, a large-scale lightweight benchmark for 2D and 3D biomedical image classification. Scientific Data 10: 41",
    doi: "10.1038/s41597-022-01721-8",
  },
  who: {
    cited: "Nagtegaal et al. 2020",
    title: "The 2019 WHO classification of tumours of the digestive system. Histopathology 76: 182-188",
    doi: "10.1111/his.13975",
  },
  mesker: {
    cited: "Mesker et al. 2007",
    title: "The carcinoma-stromal ratio of colon carcinoma is an independent factor for survival compared to lymph node status and tumor stage. Cellular Oncology 29: 387-398",
    doi: "10.1155/2007/175276",
  },
  galon: {
    cited: "Galon et al. 2006",
    title: "Type, density, and location of immune cells within human colorectal tumors predict clinical outcome. Science 313: 1960-1964",
    doi: "10.1126/science.1129139",
  },
  vayrynen: {
    cited: "Väyrynen et al. 2016",
    title: "Clinical impact and network of determinants of tumour necrosis in colorectal cancer. British Journal of Cancer 114: 1334-1342",
    doi: "10.1038/bjc.2016.128",
  },
  luo: {
    cited: "Luo et al. 2019",
    title: "Mucinous colorectal adenocarcinoma: clinical pathology and treatment options. Cancer Communications 39: 13",
    doi: "10.1186/s40880-019-0361-0",
  },
  wulczyn: {
    cited: "Wulczyn et al. 2021",
    title: "Interpretable survival prediction for colorectal cancer using deep learning. npj Digital Medicine 4: 71",
    doi: "10.1038/s41746-021-00427-2",
  },
};

/** What the page says about each class. @type {Record<string, Omit<Tissue, "code" | "fullName">>} */
const TEXTS = {
  ADI: {
    name: "Adipose",
    group: "normal",
    looks: "Fat cells: large vacuoles that look empty, between thin membranes.",
    means: "Fat lies outside the muscle wall and in the mesentery. Clusters of poorly differentiated tumour cells next to it were associated with shorter survival.",
    sources: ["kather", "wulczyn"],
  },
  BACK: {
    name: "Background",
    group: "none",
    looks: "Glass without tissue.",
    means: "Empty glass: there is no tissue here.",
    sources: ["kather", "medmnist"],
  },
  DEB: {
    name: "Debris",
    group: "context",
    looks: "Necrotic or detached material without intact cells.",
    means: "Necrosis inside the glands is common in colorectal carcinoma; much of it (10 % of the tumour or more) was associated with shorter survival.",
    sources: ["kather", "vayrynen"],
  },
  LYM: {
    name: "Lymphocytes",
    group: "context",
    looks: "Densely packed, small, round, dark nuclei of immune cells.",
    means: "Number, type and place of immune cells in and around a tumour predicted survival better than stage in the cohorts of Galon et al.; more of them meant longer survival.",
    sources: ["kather", "galon"],
  },
  MUC: {
    name: "Mucus",
    group: "context",
    looks: "Pale, stringy mucin outside the cells.",
    means: "Goblet cells make it in healthy bowel. If it fills at least half of a tumour, the tumour is a mucinous adenocarcinoma, a subtype with its own biology and a debated prognosis.",
    sources: ["kather", "luo", "who"],
  },
  MUS: {
    name: "Smooth muscle",
    group: "normal",
    looks: "Parallel eosinophilic fibres with long nuclei.",
    means: "The muscle layers of the bowel wall. How far a carcinoma has grown into or through them is part of its stage.",
    sources: ["kather", "medmnist"],
  },
  NORM: {
    name: "Normal mucosa",
    group: "normal",
    looks: "Round, regular crypts with goblet cells.",
    means: "The healthy lining of the bowel. Colorectal carcinoma arises from this epithelium, mostly by way of adenomas and serrated lesions.",
    sources: ["kather", "who"],
  },
  STR: {
    name: "Tumour stroma",
    group: "tumour",
    looks: "Desmoplastic connective tissue around a tumour; easily mistaken for smooth muscle.",
    means: "Tumours with much stroma and little carcinoma had far shorter survival in the cohort of Mesker et al.; a score that a network computed from stroma and its neighbours predicted survival in the cohort of Kather et al.",
    sources: ["kather", "mesker"],
  },
  TUM: {
    name: "Tumour epithelium",
    group: "tumour",
    looks: "Irregular, crowded malignant glands with enlarged nuclei.",
    means: "The cancer itself. Adenocarcinoma is the usual carcinoma of colon and rectum; its grade depends on how much of it still forms glands.",
    sources: ["kather", "who"],
  },
};

/** In the order of the network's outputs. @type {readonly Tissue[]} */
export const TISSUES = CONTRACT.classes.map(({ code, name }) => ({ code, fullName: name, ...TEXTS[code] }));

const BY_CODE = new Map(TISSUES.map((tissue) => [tissue.code, tissue]));

/** @param {string} code */
export function nameOf(code) {
  return BY_CODE.get(code)?.name ?? code;
}
